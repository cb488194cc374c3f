"""A target is the old one or the new one, whole; what lies beside it goes away."""

import errno
import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from tenfold.core.atomic import (
    check_file,
    check_folder,
    replacing,
    replacing_folder,
    write_bytes,
    write_text,
)
from tenfold.core.errors import TargetError, TenfoldError


class Killed(BaseException):
    """Not an `Exception`, as Ctrl-C is not."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def old_folder(path: Path) -> Path:
    path.mkdir()
    (path / "plan.json").write_text("old")
    (path / "extra").write_text("old")
    return path


def break_rename(monkeypatch: pytest.MonkeyPatch, name: str, failing: int) -> None:
    """The call number `failing` of `os.<name>` fails as on a full disk."""
    rename, calls = getattr(os, name), []

    def broken(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, name, broken)


@pytest.mark.parametrize("before", [None, "old"])
def test_a_file_is_written_as_given_and_nothing_is_left_beside_it(tmp_path: Path, before: str | None) -> None:
    target = tmp_path / "é.txt"
    if before is not None:
        target.write_text(before)
    write_text(target, "déjà\r\nvu\n")
    assert target.read_bytes() == "déjà\r\nvu\n".encode()
    write_bytes(str(target), b"\x00\xff")
    assert target.read_bytes() == b"\x00\xff"
    assert names(tmp_path) == ["é.txt"]


@pytest.mark.parametrize("error", [ValueError, Killed])
@pytest.mark.parametrize("before", [None, "old"])
def test_a_failure_leaves_the_old_file_or_none(
    tmp_path: Path, before: str | None, error: type[BaseException]
) -> None:
    target = tmp_path / "model"
    if before is not None:
        target.write_text(before)
    with pytest.raises(error), replacing(target) as temporary:
        temporary.write_text("half")
        raise error
    assert names(tmp_path) == ([] if before is None else ["model"])
    assert before is None or target.read_text() == before


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.write_text("old")
    with replacing(target) as temporary:
        temporary.write_text("new")
        assert temporary.parent == target.parent
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def test_a_file_that_cannot_be_renamed_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "model", "old")
    break_rename(monkeypatch, "replace", 1)
    with pytest.raises(TargetError, match="No space left on device"):
        write_text(tmp_path / "model", "new")
    assert names(tmp_path) == ["model"]
    assert (tmp_path / "model").read_text() == "old"


def test_permissions_are_kept_and_links_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "model", tmp_path / "latest"
    write_text(target, "old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_new_file_has_the_permissions_that_open_gives(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_is_replaced_as_a_whole(tmp_path: Path, exists: bool) -> None:
    target = tmp_path / "small"
    if exists:
        old_folder(target)
    with replacing_folder(target, marker="plan.json") as temporary:
        (temporary / "plan.json").write_text("new")
        (temporary / "deep").mkdir()
        (temporary / "deep" / "weights").write_bytes(b"123")
        assert target.exists() == exists
    assert names(tmp_path) == ["small"]
    assert names(target) == ["deep", "plan.json"]
    assert (target / "deep" / "weights").read_bytes() == b"123"


@pytest.mark.parametrize("error", [ValueError, Killed])
def test_a_failure_leaves_the_old_folder(tmp_path: Path, error: type[BaseException]) -> None:
    target = old_folder(tmp_path / "small")
    with pytest.raises(error), replacing_folder(target) as temporary:
        (temporary / "plan.json").write_text("half")
        raise error
    assert names(tmp_path) == ["small"]
    assert names(target) == ["extra", "plan.json"]
    assert (target / "plan.json").read_text() == "old"


@pytest.mark.parametrize("failing", [1, 2])
def test_a_folder_that_cannot_be_renamed_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    target = old_folder(tmp_path / "small")
    break_rename(monkeypatch, "rename", failing)
    with pytest.raises(TargetError, match="No space left") as error, replacing_folder(target) as temporary:
        (temporary / "plan.json").write_text("new")
    assert names(tmp_path) == [temporary.name, "small"]
    assert (target / "plan.json").read_text() == "old"
    assert (temporary / "plan.json").read_text() == "new"
    assert str(temporary) in error.value.problem


def test_a_folder_of_somebody_else_stays(tmp_path: Path) -> None:
    target = tmp_path / "photos"
    target.mkdir()
    (target / "cat.png").touch()
    message = r"has no 'plan\.json': it is not tenfold's, and is not replaced"
    with pytest.raises(TargetError, match=message), replacing_folder(target, marker="plan.json"):
        pass
    assert names(target) == ["cat.png"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    with replacing_folder(tmp_path / "small", marker="plan.json") as temporary:
        (temporary / "plan.json").touch()
    assert names(tmp_path / "small") == ["plan.json"]


def test_the_current_folder_is_not_pulled_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (".", "..", "/"):
        with pytest.raises(TargetError, match="current folder"), replacing_folder(path):
            pass


@pytest.mark.parametrize("writing", [replacing, replacing_folder])
def test_a_missing_parent_is_an_error_that_names_it(tmp_path: Path, writing) -> None:
    with (
        pytest.raises(TargetError, match=r"there is no folder '.*nowhere'"),
        writing(tmp_path / "nowhere" / "x"),
    ):
        pass
    assert names(tmp_path) == []


def test_a_target_of_the_wrong_kind_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(TargetError, match="should be a file to write, but it is a folder"):
        write_text(tmp_path / "folder", "")
    message = "should be a folder to write, but it is a file"
    with pytest.raises(TargetError, match=message), replacing_folder(tmp_path / "file"):
        pass
    with pytest.raises(TenfoldError, match="neither a file nor a folder"):
        write_text(os.devnull, "")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="everything is writable for root")
@pytest.mark.parametrize("writing", [replacing, replacing_folder])
def test_a_parent_that_is_not_writable_is_an_error(tmp_path: Path, writing) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(TargetError, match="Permission denied"), writing(tmp_path / "x"):
        pass
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("writing", [replacing, replacing_folder])
def test_what_the_system_refuses_is_our_error(tmp_path: Path, writing) -> None:
    with pytest.raises(TargetError, match="File name too long"), writing(tmp_path / ("x" * 300)):
        pass


@pytest.mark.parametrize("check", [check_file, check_folder])
def test_a_check_refuses_a_name_that_is_too_long(tmp_path: Path, check) -> None:
    with pytest.raises(TargetError, match="File name too long"):
        check(tmp_path / ("x" * 300))


def test_every_name_that_the_system_takes_can_be_written(tmp_path: Path) -> None:
    write_text(tmp_path / ("é" * 127), "whole")
    with replacing_folder(tmp_path / ("x" * 255)):
        pass
    assert names(tmp_path) == ["x" * 255, "é" * 127]


@pytest.mark.parametrize(
    ("check", "make", "message"),
    [
        *((check, Path.touch, "mount point") for check in (check_file, replacing)),
        *(
            (check, Path.mkdir, "mount point.*\n.*Give a folder inside it")
            for check in (check_folder, replacing_folder)
        ),
    ],
)
def test_a_mount_point_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check, make, message: str
) -> None:
    make(tmp_path / "it")
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "it")
    with pytest.raises(TargetError, match=message), check(tmp_path / "it") or nullcontext():
        pass


def put_by_another_run(monkeypatch: pytest.MonkeyPatch, target: Path, times: int) -> None:
    """After each of the first `times` renames away from the target, another run's folder is there."""
    rename, calls = os.rename, []

    def raced(source: Path, goal: Path) -> None:
        rename(source, goal)
        if source == target and len(calls) < times:
            calls.append(source)
            target.mkdir()
            (target / "plan.json").write_text("theirs")

    monkeypatch.setattr(os, "rename", raced)


def test_a_folder_that_another_run_puts_between_the_renames_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = old_folder(tmp_path / "small")
    put_by_another_run(monkeypatch, target, times=2)
    with replacing_folder(target) as temporary:
        (temporary / "plan.json").write_text("ours")
    assert names(tmp_path) == ["small"]
    assert (target / "plan.json").read_text() == "ours"


def test_a_folder_that_another_run_keeps_writing_is_an_error_that_names_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = old_folder(tmp_path / "small")
    put_by_another_run(monkeypatch, target, times=100)
    with pytest.raises(TargetError, match="another run") as error, replacing_folder(target) as temporary:
        (temporary / "plan.json").write_text("ours")
    assert names(tmp_path) == [temporary.name, "small"]
    assert (temporary / "plan.json").read_text() == "ours"
    assert str(temporary) in error.value.problem


@pytest.mark.parametrize("writing", [replacing, replacing_folder])
def test_a_disk_that_is_full_while_writing_is_our_error(tmp_path: Path, writing) -> None:
    with pytest.raises(TargetError, match="No space left on device"), writing(tmp_path / "x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FileNotFoundError), writing(tmp_path / "x"):
        raise FileNotFoundError(errno.ENOENT, "of another file")
    assert names(tmp_path) == []


@pytest.mark.parametrize("writing", [replacing, replacing_folder])
def test_a_disk_that_is_full_on_flushing_is_our_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writing
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TargetError, match="Input/output error"), writing(tmp_path / "x") as temporary:
        (temporary / "y" if temporary.is_dir() else temporary).write_text("lost")
    assert names(tmp_path) == []


def test_the_permissions_of_a_folder_are_kept(tmp_path: Path) -> None:
    target = old_folder(tmp_path / "small")
    target.chmod(0o700)
    with replacing_folder(target):
        pass
    assert target.stat().st_mode & 0o777 == 0o700
