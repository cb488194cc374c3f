"""Writing files and folders whole or not at all.

What is written goes to a sibling first, `.name.tmp-1f2e3d4c`, then to the disk, and is then renamed over the
target. Whoever reads the target sees the old one or the new one, never half of it; an exception leaves the
old one. A killed run may leave the sibling. For the moment of two renames a replaced folder is absent.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tenfold.core.errors import TargetError

StrPath = str | os.PathLike[str]

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
    target = _file_to_write(path)
    temporary = _sibling(target, "tmp")
    with _reporting(target):
        temporary.touch(exist_ok=False)
    try:
        with _reporting(target, FULL):
            yield temporary
        with _reporting(target):
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
    target = _folder_to_write(path, marker, names)
    temporary = _sibling(target, "tmp")
    with _reporting(target):
        temporary.mkdir()
    try:
        with _reporting(target, FULL):
            yield temporary
        with _reporting(target):
            _flush_tree(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    with _naming(temporary, target):
        _swap(target, temporary)
    _flush_folder(target.parent)


def check_file(path: StrPath) -> None:
    """Raise TargetError where `replacing` would; asked before long work, it writes nothing."""
    _check_writable(_file_to_write(path))


def check_folder(path: StrPath, marker: str | None = None, names: Collection[str] | None = None) -> None:
    """Raise TargetError where `replacing_folder` would; asked before long work, it writes nothing."""
    _check_writable(_folder_to_write(path, marker, names))


def _file_to_write(path: StrPath) -> Path:
    target = Path(os.path.realpath(path))
    with _reporting(target):
        _check_parent(target)
        _check_name(target)
        _check_file(target)
    return target


def _folder_to_write(path: StrPath, marker: str | None, known: Collection[str] | None) -> Path:
    target = Path(os.path.realpath(path))
    with _reporting(target):
        _check_parent(target)
        _check_name(target)
        _check_folder(target, marker, known)
    return target


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


def _check_parent(target: Path) -> None:
    if not target.parent.is_dir():
        raise TargetError(
            f"'{target}' cannot be written: there is no folder '{target.parent}'.",
            "Create that folder first, or check the path for a typing error.",
        )


def _check_name(target: Path) -> None:
    """Raises the OSError of a name that the system cannot have, such as one that is too long."""
    with suppress(FileNotFoundError):
        target.lstat()


def _check_writable(target: Path) -> None:
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise TargetError(
            f"'{target}' cannot be written: the folder '{target.parent}' may not be changed.",
            "Check the permissions there, or choose another folder.",
        )


def _check_file(target: Path) -> None:
    if target.exists() and not target.is_file():
        kind = "a folder" if target.is_dir() else "neither a file nor a folder"
        raise TargetError(
            f"'{target}' should be a file to write, but it is {kind}.",
            "Give the name of a file, new or to be replaced.",
        )
    if os.path.ismount(target):
        raise TargetError(
            f"'{target}' is a mount point, which cannot be replaced.",
            "Give another name, or mount the folder that holds it.",
        )


def _check_folder(target: Path, marker: str | None, known: Collection[str] | None) -> None:
    if target.exists() and not target.is_dir():
        raise TargetError(
            f"'{target}' should be a folder to write, but it is a file.",
            "Give the name of a folder, new or to be replaced, or move the file away.",
        )
    if Path.cwd().is_relative_to(target):
        raise TargetError(
            f"'{target}' would be replaced as a whole, but it is the current folder or holds it.",
            "Give the name of a folder inside it.",
        )
    if os.path.ismount(target):
        raise TargetError(
            f"'{target}' is a mount point, which cannot be replaced.", "Give a folder inside it."
        )
    names = _names(target)
    if marker is not None and names and marker not in names:
        raise TargetError(
            f"'{target}' is not empty and has no '{marker}': it is not tenfold's, and is not replaced.",
            "Give another name, or empty the folder.",
        )
    if marker is not None and known is not None and (others := sorted(set(names) - {*known, marker})):
        raise TargetError(
            f"'{target}' would be replaced as a whole, but holds '{others[0]}', which is not tenfold's.",
            "Give another name, or move that away.",
        )


def _names(folder: Path) -> list[str]:
    """What a folder holds, in one reading: another run may replace it at any moment."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


@contextmanager
def _reporting(target: Path, numbers: Sequence[int] | None = None) -> Iterator[None]:
    """Errors of the operating system, as ours: all, or those with the `numbers`."""
    try:
        yield
    except OSError as error:
        if numbers is not None and error.errno not in numbers:
            raise
        raise TargetError(
            f"'{target}' cannot be written in '{target.parent}': {error.strerror or error}.",
            "Check the permissions and the free space there, or choose another folder.",
        ) from error


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
