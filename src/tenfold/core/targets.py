"""Where a file or a folder may be written, and what is said where it may not."""

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tenfold.core.errors import TargetError

StrPath = str | os.PathLike[str]


def file_to_write(path: StrPath) -> Path:
    """The path, links followed; raises TargetError if no file can be put there."""
    target = Path(os.path.realpath(path))
    with reporting(target):
        _check_parent(target)
        _check_name(target)
        _check_file(target)
    return target


def folder_to_write(path: StrPath, marker: str | None, known: Collection[str] | None) -> Path:
    """The path, links followed; raises TargetError if no folder can be put there, see `replacing_folder`."""
    target = Path(os.path.realpath(path))
    with reporting(target):
        _check_parent(target)
        _check_name(target)
        _check_folder(target, marker, known)
    return target


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


def check_writable(target: Path) -> None:
    """Raise TargetError if the folder around it may not be changed."""
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
def reporting(target: Path, numbers: Sequence[int] | None = None) -> Iterator[None]:
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
