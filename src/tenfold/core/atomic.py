"""Writing files and folders whole or not at all.

What is written goes to a sibling first, `.name.tmp-1f2e3d4c`, then to the disk, and is then renamed over the
target. Whoever reads the target sees the old one or the new one, never half of it; an exception leaves the
old one. A killed run may leave the sibling. For the moment of two renames a replaced folder is absent.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tenfold.core.errors import TargetError

StrPath = str | os.PathLike[str]


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
        TargetError: if `path` is a folder, or its parent is missing or cannot be written.
    """
    target = Path(os.path.realpath(path))
    _check_parent(target)
    _check_file(target)
    temporary = _sibling(target, "tmp")
    with _reporting(target):
        temporary.touch(exist_ok=False)
    try:
        yield temporary
        _flush(temporary)
        with _reporting(target):
            _replace_file(target, temporary)
    finally:
        temporary.unlink(missing_ok=True)
    _flush_folder(target.parent)


@contextmanager
def replacing_folder(path: StrPath, marker: str | None = None) -> Iterator[Path]:
    """Yield an empty sibling folder to fill; on leaving it becomes `path`, on an exception it is removed.

    An existing folder is deleted with all that it holds, so name a `marker`: a file that every folder of
    yours has. A folder that is not empty and lacks it is somebody else's, and stays.

    Raises:
        TargetError: if `path` is a file, the current folder or above it, or a folder without the `marker`;
            or if its parent is missing or cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing_folder(f"{folder}/small", marker="plan.json") as temporary:
    ...         _ = (temporary / "plan.json").write_text("{}")
    ...     os.listdir(folder), os.listdir(f"{folder}/small")
    (['small'], ['plan.json'])
    """
    target = Path(os.path.realpath(path))
    _check_parent(target)
    _check_folder(target, marker)
    temporary = _sibling(target, "tmp")
    with _reporting(target):
        temporary.mkdir()
    try:
        yield temporary
        _flush_tree(temporary)
        with _reporting(target):
            _swap(target, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _flush_folder(target.parent)


def check_file(path: StrPath) -> None:
    """Raise TargetError where `replacing` would; asked before long work, it writes nothing."""
    target = Path(os.path.realpath(path))
    _check_parent(target)
    _check_file(target)
    _check_writable(target)


def check_folder(path: StrPath, marker: str | None = None) -> None:
    """Raise TargetError where `replacing_folder` would; asked before long work, it writes nothing."""
    target = Path(os.path.realpath(path))
    _check_parent(target)
    _check_folder(target, marker)
    _check_writable(target)


def _sibling(target: Path, what: str) -> Path:
    return target.with_name(f".{target.name}.{what}-{secrets.token_hex(4)}")


def _replace_file(target: Path, temporary: Path) -> None:
    if target.exists():
        shutil.copymode(target, temporary)
    os.replace(temporary, target)


def _swap(target: Path, temporary: Path) -> None:
    """The old folder aside, the new one in, the old one deleted; if the second fails, the first is undone."""
    if not target.exists():
        os.rename(temporary, target)
        return
    old = _sibling(target, "old")
    os.rename(target, old)
    try:
        os.rename(temporary, target)
    except BaseException:
        os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


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


def _check_folder(target: Path, marker: str | None) -> None:
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
    if marker is not None and target.is_dir() and any(target.iterdir()) and not (target / marker).exists():
        raise TargetError(
            f"'{target}' is not empty and has no '{marker}': it is not tenfold's, and is not replaced.",
            "Give another name, or empty the folder.",
        )


@contextmanager
def _reporting(target: Path) -> Iterator[None]:
    """Errors of the operating system, as ours."""
    try:
        yield
    except OSError as error:
        raise TargetError(
            f"'{target}' cannot be written in '{target.parent}': {error.strerror or error}.",
            "Check the permissions and the free space there, or choose another folder.",
        ) from error
