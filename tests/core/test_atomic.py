"""A target is the old one or the new one, whole; what lies beside it goes away."""

import os
from pathlib import Path

import pytest

from tenfold.core.atomic import replacing, replacing_folder, write_bytes, write_text
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
    with pytest.raises(TargetError, match="No space left"), replacing_folder(target):
        pass
    assert names(tmp_path) == ["small"]
    assert (target / "plan.json").read_text() == "old"


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
    with pytest.raises(TargetError, match="File name too long"), writing(tmp_path / ("x" * 250)):
        pass
