"""Every bad input is said in words, ends with exit code 2, and writes nothing."""

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import tenfold
from tenfold.cli.images import alike, matched
from tenfold.data import ImageData, open_data
from tests.cli.conftest import Call, tiny

NET = ("net.py:net", "--weights", "dense.safetensors")
COMPRESS = ("compress", *NET, "--data", "images.npz", "--out", "small")
PLAN = ("plan", "net.py:net", "--input-shape", "1,1,8,8", "--out", "plan.json")


def with_option(call: tuple[str, ...], option: str, value: str) -> tuple[str, ...]:
    """The call with another value of an option, or with one more option."""
    if option not in call:
        return (*call, option, value)
    place = call.index(option) + 1
    return (*call[:place], value, *call[place + 1 :])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--data", "nowhere.npz", "There is no file or folder 'nowhere.npz'"),
        ("--data", "net.py", "'net.py' ends in '.py', which is not known"),
        ("--test-data", "nowhere.npz", "There is no file or folder 'nowhere.npz'"),
        ("--weights", "nowhere.safetensors", "'nowhere.safetensors' cannot be read: it does not exist"),
        ("--keep", "ratio=2", "--keep came as 'ratio=2'"),
        ("--keep", "params=much", "--keep came as 'params=much'"),
        ("--keep", "params=1.5", "a budget of params=1.5 came"),
        ("--keep", "params=0.001", "Keep at least params="),
        ("--preset", "tucker3", "unknown preset 'tucker3'; did you mean 'tucker'?"),
        ("--rule", "energie", "unknown rank rule 'energie'; did you mean 'energy'?"),
        ("--rule", "fixed", "The rule 'fixed' needs ranks"),
        ("--rule", "best", "Known: alds, energy, evbmf, lagrangian, uniform"),
        ("--rule", "search", "Give one of alds, energy, evbmf, lagrangian, uniform"),
        ("--select", "conv9=none", "'conv9' matches no site"),
        ("--select", "conv9", "--select came as 'conv9'"),
        ("--select", "re:(=none", "is no regular expression"),
        ("--select", "6=tucker2", "preset 'tucker2' cannot serve '6'"),
        ("--mean", "0.5", "Only one of --mean and --std is given"),
        ("--device", "abacus", "The device 'abacus' cannot be used"),
        ("--device", "meta", "The device 'meta' cannot be used"),
        ("--input-shape", "1,²", "Give whole numbers with the batch first"),
        ("--input-shape", "1,3,8,8", "cannot take an input of shape (1, 3, 8, 8): RuntimeError"),
        ("--input-shape", "eight", "--input-shape came as 'eight'"),
        ("--input-shape", "1,1,100000000,100000000", "which is more than the memory holds"),
        ("--input-shape", "1,1,99999999999999999999,8", "which is more than the memory holds"),
        ("--batch-size", "0", "A batch needs size >= 1"),
        ("--lr", "-1", "--lr came as -1."),
        ("--lr", "nan", "--lr came as nan."),
        ("--max-drop", "-1", "--max-drop came as -1."),
        ("--max-drop", "nan", "--max-drop came as nan."),
        ("--seed", "99999999999999999999", "Invalid value for '--seed'"),
        ("--microbatch", "0", "Invalid value for '--microbatch'"),
        ("--out", "missing/small", "there is no folder"),
        ("--out", "net.py", "it is a file"),
    ],
)
def test_bad_options_of_compress(refused: Call, option: str, value: str, message: str) -> None:
    assert message in refused(*with_option(COMPRESS, option, value)).err.replace("'6.weight'", "'6'")


@pytest.mark.parametrize("option", [("--lr", "-1"), ("--max-drop", "-1"), ("--seed", "9" * 20)])
def test_bad_numbers_are_said_before_images_are_read(refused: Call, option: tuple[str, str]) -> None:
    told = refused(*with_option(COMPRESS, "--data", "nowhere.npz"), *option).err
    assert option[0] in told and "docstring" not in told


@pytest.mark.parametrize("command", ["inspect", "plan"])
@pytest.mark.parametrize("side", ["100000000", "99999999999999999999"])
def test_inputs_of_more_than_memory(refused: Call, command: str, side: str) -> None:
    told = refused(command, "net.py:net", "--input-shape", f"1,1,{side},{side}").err
    assert "which is more than the memory holds" in told


@pytest.mark.parametrize(
    ("mean", "std"), [("0.5", "0"), ("0.5", "-1"), ("nan", "1"), ("0.5", "inf"), ("0.1,0.2,0.3", "1,1")]
)
def test_scales_that_cannot_normalize(refused: Call, mean: str, std: str) -> None:
    told = refused("apply", *NET, "--plan", "plan.json", "--out", "small", "--mean", mean, "--std", std).err
    assert f"--mean came as '{mean}', --std as '{std}'" in told


def test_evaluate_refuses_a_device_without_numbers(refused: Call, work: Path) -> None:
    told = refused("evaluate", "small", "--data", "images.npz", "--device", "meta").err
    assert "The device 'meta' cannot be used" in told


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("net.py", "MODEL came as 'net.py'"),
        ("other.py:net", "There is no file 'other.py'"),
        ("net.py:nett", "'net.py' has no 'nett'.\nDid you mean 'net'?"),
        (
            "no_such_package.zoo:net",
            "cannot be imported: ModuleNotFoundError: No module named 'no_such_package'",
        ),
        ("tenfold.zoo:resnet2", "Did you mean 'resnet20'?"),
        (
            "net.py:failing",
            "raises when it is called without arguments: KeyError: 'no such thing' (net.py, line",
        ),
        ("net.py:needing", "raises when it is called without arguments: TypeError: needing() missing 1"),
        ("net.py:text", "'net.py:text' gives str, which is no torch.nn.Module"),
        ("net.py:number", "'net.py:number' is int, neither a module nor callable"),
        ("broken.py:net", "'broken.py:net' cannot be imported: SyntaxError"),
    ],
)
def test_models_that_cannot_be_had(refused: Call, work: Path, model: str, message: str) -> None:
    (work / "broken.py").write_text("def net(:\n")
    assert message in refused("plan", model, *PLAN[2:]).err


def test_pickled_modules_are_refused_with_a_remedy(refused: Call, work: Path) -> None:
    torch.save(tiny(), work / "pickled.pt")
    told = refused(*with_option(COMPRESS, "--weights", "pickled.pt")).err
    assert "'pickled.pt' holds pickled Python objects" in told
    assert "torch.save(model.state_dict(), path)" in told


def test_weights_that_are_no_state_dict(refused: Call, work: Path) -> None:
    torch.save({"epoch": 3, "lr": 0.1}, work / "other.pt")
    (work / "text.pt").write_text("text")
    (work / "text.safetensors").write_text("text")
    assert "holds dict, not a state dict" in refused(*with_option(COMPRESS, "--weights", "other.pt")).err
    assert "'text.pt'" in refused(*with_option(COMPRESS, "--weights", "text.pt")).err
    assert "cannot be read" in refused(*with_option(COMPRESS, "--weights", "text.safetensors")).err


def test_weights_of_another_architecture_are_listed(refused: Call, work: Path) -> None:
    arrays = tiny().state_dict()
    arrays["extra.weight"] = arrays.pop("0.weight").clone()
    arrays["6.bias"] = torch.zeros(7)
    save_file(arrays, work / "other.safetensors")
    told = refused(*with_option(COMPRESS, "--weights", "other.safetensors")).err
    assert (
        "missing: 0.weight; unexpected: extra.weight; of another shape: 6.bias is (7,) instead of (2,)"
        in told
    )


def test_weights_with_nan_name_the_parameter(refused: Call, work: Path) -> None:
    net = tiny()
    assert isinstance(net[2], nn.Conv2d)
    nn.init.constant_(net[2].weight, float("nan"))
    save_file(net.state_dict(), work / "nan.safetensors")
    assert "'2.weight'" in refused(*with_option(COMPRESS, "--weights", "nan.safetensors")).err


def test_a_folder_of_somebody_else_stays(refused: Call, work: Path) -> None:
    (work / "small").mkdir()
    (work / "small" / "thesis.tex").write_text("my only copy")
    for call in (COMPRESS, ("demo", "--out", "small")):
        assert "and is not replaced" in refused(*call).err


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_cannot_be_written(refused: Call, work: Path) -> None:
    (work / "closed").mkdir(mode=0o500)
    assert "may not be changed" in refused(*with_option(COMPRESS, "--out", "closed/small")).err


def test_more_classes_than_the_model_tells_apart(refused: Call, work: Path) -> None:
    text = (work / "net.py").read_text().replace("nn.Linear(16, 2)", "nn.Linear(16, 1)")
    (work / "one.py").write_text(text)
    told = refused("compress", "one.py:net", "--data", "images.npz", "--out", "small").err
    assert "gives (32, 1) for 32 images, but the data have 2 classes" in told


def test_plans_that_are_none(refused: Call, work: Path) -> None:
    (work / "bad.json").write_text("{}")
    for name, message in (("bad.json", "this is no plan"), ("no.json", "the plan 'no.json' cannot be read")):
        assert message in refused("apply", *NET, "--plan", name, "--out", "small").err


def test_a_plan_of_another_model(refused: Call, call: Call) -> None:
    assert call("plan", "tenfold.zoo:resnet20", "--out", "plan.json").code == 0
    assert "which the model has not" in refused("apply", *NET, "--plan", "plan.json", "--out", "small").err


def test_folders_that_are_no_checkpoint(refused: Call) -> None:
    assert "'.' is no checkpoint" in refused("evaluate", ".", "--data", "images.npz").err
    assert "'gone' is no checkpoint" in refused("evaluate", "gone", "--data", "images.npz").err


def test_weights_are_trained_into_a_safetensors_file(refused: Call) -> None:
    told = refused("train", "net.py:net", "--data", "images.npz", "--out", "dense.pt").err
    assert "--out is 'dense.pt'" in told


@pytest.mark.parametrize("command", ["inspect", "plan"])
def test_errors_as_json(refused: Call, command: str) -> None:
    told = refused(command, "net.py:nett", "--json")
    assert json.loads(told.err.splitlines()[-1]) == {
        "error": "'net.py' has no 'nett'.",
        "remedy": "Did you mean 'net'?",
    }


def test_other_exceptions_keep_their_traceback(
    work: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr("tenfold.cli.asked.budget", broken)
    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        call(*PLAN)


def test_an_interruption_ends_with_130_and_leaves_nothing(
    work: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = set(work.iterdir())
    monkeypatch.setattr("tenfold.cli.outcome.write_html", interrupted)
    assert call(*COMPRESS, "--tune-epochs", "0").code == 130
    assert {p for p in work.iterdir() if p.name != "__pycache__"} == before


def write_folders(root: Path, classes: dict[str, int]) -> None:
    """Four grey images for each class, of the brightness given."""
    for name, grey in classes.items():
        (root / name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (8, 8), grey + number).save(root / name / f"{number}.png")


def test_test_images_of_other_classes(refused: Call, work: Path) -> None:
    write_folders(work / "train", {"cat": 0, "dog": 99})
    write_folders(work / "other", {"wolf": 0, "xyz": 99})
    for call in (COMPRESS, ("train", "net.py:net", "--data", "", "--out", "dense2.safetensors")):
        told = refused(*with_option(call, "--data", "train"), "--test-data", "other").err
        assert "was not trained on the classes wolf, xyz; it knows cat, dog" in told


def test_test_images_of_some_of_the_classes_count_by_name(work: Path) -> None:
    write_folders(work / "train", {"cat": 0, "dog": 99})
    write_folders(work / "other", {"dog": 99})
    train, test = (open_data(work / name) for name in ("train", "other"))
    assert set(alike(train, test).labels.tolist()) == {1}


def test_evaluate_finds_classes_by_their_names(call: Call, work: Path) -> None:
    write_folders(work / "train", {"cat": 0, "dog": 99})
    write_folders(work / "dogs", {"dog": 99})
    write_folders(work / "both", {"cat": 99, "dog": 99})
    write_folders(work / "wolves", {"wolf": 99})
    done = call(*with_option(COMPRESS, "--data", "train"), "--tune-epochs", "0", "--input-shape", "4,1,8,8")
    assert done.code == 0, done.err
    evaluate = ("evaluate", "small", "--model", "net.py:net", "--json", "--data")
    dogs, both = (call(*evaluate, name).json["accuracy"] for name in ("dogs", "both"))
    assert dogs in (0, 1) and both == 0.5
    network = tenfold.load(tiny, work / "small")
    extra = json.loads((work / "small" / "extra.json").read_text())
    shown = open_data(work / "dogs").normalized(extra["mean"], extra["std"])
    assert dogs == float(network(next(iter(shown.batches(4)))[0]).argmax(1).float().mean())
    told = call(*evaluate, "wolves")
    assert told.code == 2 and "was not trained on the classes wolf" in told.err


@pytest.mark.parametrize(
    ("own", "known", "labels"),
    [
        (("dog", "horse"), ("cat", "dog", "horse"), [1, 2]),
        (("a", "a"), ("a", "a"), [0, 1]),
        (("3", "5"), tuple("0123456789"), [3, 5]),
        (("0", "1"), ("cat", "dog"), [0, 1]),
        (("cat", "dog"), ("0", "1"), [0, 1]),
    ],
)
def test_labels_are_matched_by_name_where_there_are_names(
    own: tuple[str, ...], known: tuple[str, ...], labels: list[int]
) -> None:
    data = ImageData(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.arange(2), own)
    assert matched(data, known).labels.tolist() == labels
