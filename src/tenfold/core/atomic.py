"""Writing files and folders whole or not at all.

What is written goes to a sibling first, `.name.tmp-1f2e3d4c`, then to the disk, and is then renamed over the
target. Whoever reads the target sees the old one or the new one, never half of it; an exception leaves the
old one. A killed run may leave the sibling. For the moment of two renames a replaced folder is absent.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tenfold.core.errors import TargetError
from tenfold.core.targets import StrPath, check_writable, file_to_write, folder_to_write, reporting

__all__ = [
    "StrPath",
    "check_file",
    "check_folder",
    "replacing",
    "replacing_folder",
    "write_bytes",
    "write_text",
]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says of a full disk, a used-up quota and a file over the limit."""

TAKEN = (errno.ENOTEMPTY, errno.EEXIST)
"""What the system says of a rename to a folder that holds something."""

SWAPS = 5
"""How often a folder is put in its place, where another run writes the same one."""


def write_text(path: StrPath, text: str) -> None:
    """Replace the file by `text` in UTF-8, with line ends as they are.

    Raises:
        TargetError: if `path` is a folder, or its parent is missing or cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_text(f"{folder}/note.txt", "déjà vu")
    ...     Path(folder, "note.txt").read_text(encoding="utf-8")
    'déjà vu'
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: StrPath, data: bytes) -> None:
    """Replace the file by `data`.

    Raises:
        TargetError: if `path` is a folder, or its parent is missing or cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replacing(path: StrPath) -> Iterator[Path]:
    """Yield an empty sibling file to write; on leaving it becomes `path`, on an exception it is removed.

    A symbolic link is followed, and the permissions of an existing file are kept.

    Raises:
        TargetError: if `path` is a folder or a mount point, its parent is missing or cannot be written, or
            the disk is full.
    """
    target = file_to_write(path)
    temporary = _sibling(target, "tmp")
    with reporting(target):
        temporary.touch(exist_ok=False)
    try:
        with reporting(target, FULL):
            yield temporary
        with reporting(target):
            _flush(temporary)
            _replace_file(target, temporary)
    finally:
        temporary.unlink(missing_ok=True)
    _flush_folder(target.parent)


@contextmanager
def replacing_folder(
    path: StrPath, marker: str | None = None, names: Collection[str] | None = None
) -> Iterator[Path]:
    """Yield an empty sibling folder to fill; on leaving it becomes `path`, on an exception it is removed.

    An existing folder is deleted with all that it holds, so name a `marker`: a file that every folder of
    yours has. A folder that is not empty and lacks it is somebody else's, and stays; so does one that holds
    anything but the `names`, if they are given. The permissions of an existing folder are kept. A full folder
    that cannot be put in its place stays, and the error names it.

    Raises:
        TargetError: if `path` is a file, a mount point, the current folder or above it, or a folder without
            the `marker` or with other names; if its parent is missing or cannot be written, or the disk is
            full.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing_folder(f"{folder}/small", marker="plan.json") as temporary:
    ...         _ = (temporary / "plan.json").write_text("{}")
    ...     os.listdir(folder), os.listdir(f"{folder}/small")
    (['small'], ['plan.json'])
    """
    target = folder_to_write(path, marker, names)
    temporary = _sibling(target, "tmp")
    with reporting(target):
        temporary.mkdir()
    try:
        with reporting(target, FULL):
            yield temporary
        with reporting(target):
            _flush_tree(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    with _naming(temporary, target):
        _swap(target, temporary)
    _flush_folder(target.parent)


def check_file(path: StrPath) -> None:
    """Raise TargetError where `replacing` would; asked before long work, it writes nothing."""
    check_writable(file_to_write(path))


def check_folder(path: StrPath, marker: str | None = None, names: Collection[str] | None = None) -> None:
    """Raise TargetError where `replacing_folder` would; asked before long work, it writes nothing."""
    check_writable(folder_to_write(path, marker, names))


def _sibling(target: Path, what: str) -> Path:
    """A new name beside the target, with only the start of a long name, so that it is not too long."""
    return target.with_name(f".{target.name[:30]}.{what}-{secrets.token_hex(4)}")


def _replace_file(target: Path, temporary: Path) -> None:
    if target.exists():
        shutil.copymode(target, temporary)
    os.replace(temporary, target)


def _swap(target: Path, temporary: Path) -> None:
    """The old folder aside, the new one in, the old one deleted; if the second fails, the first is undone.

    Between the two renames another run may put its own folder there: then that one is moved aside as well.
    """
    for _ in range(SWAPS):
        old = _moved_aside(target)
        done = _moved_in(target, temporary, old)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
        if done:
            return
    raise OSError(errno.ENOTEMPTY, "another run keeps writing it")


def _moved_aside(target: Path) -> Path | None:
    old = _sibling(target, "old")
    try:
        os.rename(target, old)
    except FileNotFoundError:
        return None
    return old


def _moved_in(target: Path, temporary: Path, old: Path | None) -> bool:
    """Whether the new folder is in: not if another run was first. After another failure `old` is back."""
    try:
        if old is not None:
            shutil.copymode(old, temporary)
        os.rename(temporary, target)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno in TAKEN:
            return False
        if old is not None:
            os.rename(old, target)
        raise
    return True


def _flush(file: Path) -> None:
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    """A rename is on the disk once its folder is; systems that cannot flush folders do without."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _flush_tree(root: Path) -> None:
    for folder, _, names in os.walk(root):
        for name in names:
            _flush(Path(folder, name))
        _flush_folder(Path(folder))


@contextmanager
def _naming(finished: Path, target: Path) -> Iterator[None]:
    """Errors of the operating system, as ours, which say where the finished folder is."""
    try:
        yield
    except OSError as error:
        raise TargetError(
            f"'{target}' cannot be replaced: {error.strerror or error}. What was written is in '{finished}'.",
            "Move it by hand to where you want it, or delete it and choose another folder.",
        ) from error
