"""What the subcommands do when all is well."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import tenfold
from tenfold.cli import outcome
from tenfold.compress import Statistics, collect
from tenfold.data import open_data
from tenfold.measure import accuracy
from tests.cli.conftest import Call, tiny

NET = ("net.py:net", "--weights", "dense.safetensors")
COMPRESS = ("compress", *NET, "--data", "images.npz", "--test-data", "test.npz", "--keep", "params=0.5")


def test_every_public_name_is_there() -> None:
    assert all(getattr(tenfold, name) is not None for name in tenfold.__all__)
    assert callable(tenfold.compress) and callable(tenfold.measure)
    with pytest.raises(AttributeError, match="no attribute 'compresss'"):
        _ = tenfold.compresss


def test_the_version_and_the_help(call: Call) -> None:
    assert call("--version").out.startswith("tenfold ")
    told = call("--help").out
    assert all(name in told for name in ("demo", "inspect", "plan", "apply", "compress", "evaluate", "train"))


def test_compress_evaluate_load(work: Path, call: Call) -> None:
    """The loaded model has the accuracy that compress and evaluate report."""
    done = call(
        *COMPRESS, "--tune-epochs", "3", "--lr", "0.01", "--batch-size", "16", "--out", "small", "--json"
    )
    assert done.code == 0, done.err
    (row,) = done.json["rows"]
    assert row["params"] < done.json["dense"]["params"]
    assert row["accuracy_before"] is not None and row["accuracy"] is not None
    evaluated = call("evaluate", "small", "--model", "net.py:net", "--data", "test.npz", "--json")
    assert evaluated.code == 0, evaluated.err
    assert evaluated.json["accuracy"] == row["accuracy"]
    assert evaluated.json["params"] == row["params"]
    extra = json.loads((work / "small" / "extra.json").read_text())
    test = open_data(work / "test.npz").normalized(extra["mean"], extra["std"])
    assert accuracy(tenfold.load(tiny, work / "small"), test.batches(7)) == row["accuracy"]
    assert "<html" in (work / "small" / "report" / "index.html").read_text()
    assert json.loads((work / "small" / "report" / "table.json").read_text())["rows"] == [row]


@pytest.mark.parametrize("epochs", ["0", "2"])
def test_the_report_has_the_errors_of_the_weights_that_are_written(
    work: Path, call: Call, epochs: str
) -> None:
    done = call(*COMPRESS, "--tune-epochs", epochs, "--lr", "0.01", "--out", "small", "--json")
    dense, small = tiny(), tenfold.load(tiny, work / "small")
    dense.load_state_dict(load_file(work / "dense.safetensors"))
    lines = [line for line in done.json["rows"][0]["layers"] if line["error"] is not None]
    assert lines
    for line in lines:
        name = line["site"].removesuffix(".weight")
        weight = dense.get_parameter(line["site"]).detach()
        factors: Any = small.get_submodule(name).weight
        change = factors.dense().detach() - weight
        assert line["error"] == pytest.approx(float(change.norm() / weight.norm()), rel=1e-4)


def test_compress_twice_gives_the_same_weights(work: Path, call: Call) -> None:
    for name in ("one", "two"):
        assert call(*COMPRESS, "--tune-epochs", "2", "--out", name).code == 0
    one, two = (tenfold.load(tiny, work / name).state_dict() for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_compress_in_microbatches_sees_what_whole_batches_show(
    work: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statistics are compared: the iterations behind them enlarge differences of rounding."""
    asked, found = [], []

    def watched(*args: Any, **options: Any) -> Statistics:
        asked.append(options["microbatch"])
        found.append(collect(*args, **options))
        return found[-1]

    monkeypatch.setattr(outcome, "collect", watched)
    for name, option in (("whole", ()), ("cut", ("--microbatch", "7"))):
        assert call(*COMPRESS, *option, "--tune-epochs", "0", "--out", name).code == 0
    assert asked == [None, 7]
    whole, cut = found
    assert list(whole) == list(cut) and len(whole) == 3
    for site, seen in whole.items():
        assert cut[site].samples == seen.samples
        for kind, moment in seen.tensors().items():
            difference = torch.linalg.vector_norm(cut[site].tensors()[kind] - moment)
            assert difference <= 1e-4 * torch.linalg.vector_norm(moment), (site, kind)


def test_the_table_says_what_the_numbers_are_of(work: Path, call: Call) -> None:
    told = call(*COMPRESS, "--tune-epochs", "0", "--out", "small").out
    assert "auto" in told and "params ≤ 50 %" in told
    assert "Accuracy on the 20 images of --test-data" in told
    assert "a batch of 32" in told
    assert "the numbers of the training images" in told


def test_without_test_data_the_report_says_that_the_number_is_not_fair(work: Path, call: Call) -> None:
    done = call("compress", *NET, "--data", "images.npz", "--out", "small", "--tune-epochs", "0", "--json")
    assert done.json["notes"][0] == (
        "Accuracy on 6 images of --data, which the dense model may have been trained on: "
        "give --test-data for a fair number."
    )


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        (("--tune-epochs", "1"), "chose the epoch and"),
        (("--tune-epochs", "0", "--max-drop", "90"), "chose the size and"),
        (("--tune-epochs", "1", "--max-drop", "90"), "chose the size and the epoch and"),
    ],
)
def test_the_report_says_what_the_images_have_chosen(
    work: Path, call: Call, options: tuple[str, ...], chosen: str
) -> None:
    plain = ("--metric", "none", "--rule", "uniform", "--preset", "tucker2", "--no-correct", "--json")
    done = call("compress", *NET, "--data", "images.npz", "--out", "small", *options, *plain)
    assert f"images of --data, which {chosen} which the dense model" in done.json["notes"][0]


def test_train_notes_the_scale_and_compress_takes_it(work: Path, call: Call) -> None:
    train = (
        "train",
        "net.py:net",
        "--data",
        "images.npz",
        "--test-data",
        "test.npz",
        "--epochs",
        "2",
        "--augment",
    )
    done = call(*train, "--lr", "0.01", "--batch-size", "16", "--out", "own.safetensors", "--json")
    assert done.code == 0, done.err
    assert len(done.json["trace"]) == 2 and done.json["tested"]
    with safe_open(work / "own.safetensors", framework="pt") as file:
        notes = file.metadata()
    own = open_data(work / "images.npz").normalized()
    assert json.loads(notes["mean"]) == list(own.mean) and json.loads(notes["std"]) == list(own.std)
    compress = (
        "compress",
        "net.py:net",
        "--weights",
        "own.safetensors",
        "--data",
        "test.npz",
        "--out",
        "small",
    )
    assert "the numbers of the weights" in call(*compress, "--tune-epochs", "0").out
    assert json.loads((work / "small" / "extra.json").read_text())["mean"] == list(own.mean)
    given = call(*compress, "--tune-epochs", "0", "--mean", "0.5", "--std", "0.25", "--json")
    assert "the numbers of --mean and --std" in given.json["notes"][2]
    assert json.loads((work / "small" / "extra.json").read_text())["mean"] == [0.5]


def test_plan_and_apply_are_compress_without_tuning(work: Path, call: Call) -> None:
    options = ("--keep", "params=0.5", "--select", "0=none")
    planned = call("plan", *NET, "--input-shape", "32,1,8,8", *options, "--out", "plan.json", "--json")
    assert planned.json == json.loads((work / "plan.json").read_text())
    assert planned.json["provenance"]["request"]["model"] == "net.py:net"
    assert "'0' selects none" in planned.json["dense"]["0.weight"]
    applied = call("apply", *NET, "--plan", "plan.json", "--out", "applied", "--json")
    assert [line["site"] for line in applied.json["layers"]] == ["0.weight", "2.weight", "6.weight"]
    plain = (
        "--metric",
        "none",
        "--rule",
        "uniform",
        "--preset",
        "tucker2",
        "--no-correct",
        "--tune-epochs",
        "0",
    )
    assert call("compress", *NET, *options, *plain, "--data", "images.npz", "--out", "small").code == 0
    one, two = (tenfold.load(tiny, work / name).state_dict() for name in ("applied", "small"))
    weights = [name for name in one if "running" not in name and "tracked" not in name]
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in weights)


def test_plan_prints_what_stays_dense_and_why(work: Path, call: Call) -> None:
    told = call(
        "plan", "net.py:net", "--input-shape", "1,1,8,8", "--select", "0=none", "--rule", "energy"
    ).out
    assert "'0' selects none" in told and "cannot serve" in told
    assert not (work / "plan.json").exists()


def test_inspect_lists_sites_presets_and_steps(work: Path, call: Call) -> None:
    told = call("inspect", "net.py:net", "--input-shape", "1,1,8,8").out
    assert "1x1, depthwise 3x3, 1x1" in told and "cannot serve" in told and "Conv2d 16×8×3×3" in told
    data = call("inspect", "net.py:net", "--input-shape", "1,1,8,8", "--json").json
    assert [site["name"] for site in data["sites"]] == ["0.weight", "2.weight", "6.weight"]
    assert data["sites"][1]["flops"] == 2 * 16 * 8 * 9 * 64
    costs = {(cost["preset"], cost["site"]): cost for cost in data["presets"]}
    assert costs["cp3", "2.weight"]["steps"] == ["1x1", "depthwise 3x3", "1x1"]
    assert costs["cp3", "2.weight"]["params"] < 16 * 8 * 9
    assert costs["cp3", "6.weight"]["steps"] == []


def test_inspect_takes_auto_and_several_presets(work: Path, call: Call) -> None:
    inspect = ("inspect", "net.py:net", "--input-shape", "1,1,8,8", "--json", "--preset")
    shown = {cost["preset"] for cost in call(*inspect, "auto").json["presets"]}
    assert shown == {"weight_svd", "channel_svd", "spatial_svd", "spatial_svd_w", "tucker2", "cp3"}
    shown = {cost["preset"] for cost in call(*inspect, "tucker2, cp3").json["presets"]}
    assert shown == {"tucker2", "cp3"}


def test_inspect_says_the_smallest_budget_of_a_preset(work: Path, call: Call) -> None:
    inspect = ("inspect", "net.py:net", "--input-shape", "1,1,8,8", "--preset", "tucker2", "--json")
    failed = call(*inspect, "--keep", "params=0.001").json["failed"]
    assert "Keep at least params=" in failed["tucker2"]


def test_a_state_dict_of_torch_in_a_training_checkpoint(work: Path, call: Call) -> None:
    torch.save({"epoch": 3, "state_dict": tiny().state_dict()}, work / "dense.pt")
    plan = ("plan", "net.py:net", "--weights", "dense.pt", "--input-shape", "1,1,8,8", "--json")
    assert call(*plan).code == 0


def test_a_module_may_be_named_itself_and_files_may_print(work: Path, call: Call) -> None:
    done = call("inspect", "net.py:fixed", "--input-shape", "1,3", "--json")
    assert [site["kind"] for site in done.json["sites"]] == ["Linear"]
    assert "a module that prints" in done.err


def test_models_may_print_while_they_run(work: Path, call: Call) -> None:
    done = call("inspect", "net.py:telling", "--input-shape", "1,3", "--json")
    assert [site["kind"] for site in done.json["sites"]] == ["Linear"]
    assert "a pass that prints" in done.err


def test_a_package_in_the_current_folder(work: Path, call: Call) -> None:
    (work / "own_networks_of_this_test.py").write_text((work / "net.py").read_text())
    done = call("plan", "own_networks_of_this_test:net", "--input-shape", "1,1,8,8", "--json")
    assert done.code == 0, done.err


def test_evaluate_imports_nothing_because_a_file_says_so(work: Path, call: Call) -> None:
    assert call(*COMPRESS, "--tune-epochs", "0", "--out", "small").code == 0
    (work / "net.py").write_text("raise SystemExit('imported')")
    told = call("evaluate", "small", "--data", "test.npz")
    assert told.code == 2
    assert "If you trust that code, add: --model net.py:net" in told.err
    assert "imported: " not in told.err


def test_evaluate_wants_to_know_the_scale(work: Path, call: Call) -> None:
    tenfold.save(tiny(), work / "small")
    evaluate = ("evaluate", "small", "--model", "net.py:net", "--data", "test.npz")
    assert "does not say how its inputs are normalized" in call(*evaluate).err
    assert call(*evaluate, "--mean", "0", "--std", "1").code == 0
    unknown = call("evaluate", "small", "--data", "test.npz", "--mean", "0", "--std", "1")
    assert "does not say of which model it is" in unknown.err


def test_a_network_of_the_zoo_needs_no_model(work: Path, call: Call) -> None:
    compress = (
        "compress",
        "tenfold.zoo:digits_cnn",
        "--data",
        "digits",
        "--preset",
        "channel_svd",
        "--out",
        "small",
    )
    assert call(*compress, "--tune-epochs", "0").code == 0
    done = call("evaluate", "small", "--data", "digits", "--json")
    assert done.json["model"] == "tenfold.zoo:digits_cnn" and done.json["images"] == 359


def test_the_quick_demo(work: Path, call: Call) -> None:
    done = call("demo", "--quick", "--seed", "3", "--json")
    assert done.code == 0, done.err
    check_demo(work / "tenfold-demo", done.json)
    for plan in (work / "tenfold-demo").glob("*/plan.json"):
        assert json.loads(plan.read_text())["provenance"]["request"]["seed"] == 3
    again = call("demo", "--quick", "--seed", "3", "--json").json
    assert [row["accuracy"] for row in again["rows"]] == [row["accuracy"] for row in done.json["rows"]]


@pytest.mark.slow
def test_the_whole_demo_recovers_the_accuracy(work: Path, call: Call) -> None:
    data = call("demo", "--json").json
    check_demo(work / "tenfold-demo", data)
    assert data["dense"]["accuracy"] > 0.98
    assert all(row["accuracy"] > row["accuracy_before"] for row in data["rows"])
    assert all(row["accuracy"] > 0.98 for row in data["rows"] if row["keep"] != "params ≤ 3 %")


def check_demo(folder: Path, data: dict[str, object]) -> None:
    """All variants are there, and the page and the table."""
    rows = data["rows"]
    assert isinstance(rows, list)
    variants = [path for path in folder.iterdir() if (path / "plan.json").is_file()]
    assert len(variants) == 1 + len(rows)
    assert json.loads((folder / "table.json").read_text())["rows"] == rows
    page = (folder / "index.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") and "tucker2" in page
    assert all(row["latency"]["median"] > 0 for row in rows)
