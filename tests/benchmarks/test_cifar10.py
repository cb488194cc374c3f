"""The benchmark on CIFAR-10, run on digits: it measures, goes on after a stop, and makes tables."""

import doctest
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks" / "cifar10"
MODULES = ("study", "cells", "protocol", "folder", "images", "machine", "starts", "bench", "table", "run")
TINY = ["--data", "digits", "--reduced", "--epochs", "2", "--tune-epochs", "2", "--precision", "no"]
TWO = ["--strategy", "pretrained_finetuned", "--method", "tucker", "tenfold-channel_svd", "--keep", "0.2"]


@pytest.fixture(scope="module", autouse=True)
def importable() -> Iterator[None]:
    """The scripts import each other by name, as they do when they are run."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield
    finally:
        sys.path.remove(str(FOLDER))
        for name in MODULES:
            sys.modules.pop(name, None)


def script(name: str) -> Any:
    return import_module(name)


def run(folder: Path, *more: str) -> int:
    return script("run").main([*TINY, *TWO, "--out", str(folder), *more])


def results(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def measured(folder: Path) -> dict[str, Any]:
    """The results without what depends on the speed of the machine."""
    return {name: _timeless(result) for name, result in results(folder).items()}


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if "seconds" not in k}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two tuned cells, run without a stop."""
    folder = tmp_path_factory.mktemp("finished")
    assert run(folder) == 0
    return folder


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_the_scripts_are_right(name: str) -> None:
    assert doctest.testmod(script(name), optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_published_counts_of_parameters_follow_from_the_formulas() -> None:
    study = script("study")
    strange = []
    for figure in script("table").published():
        if figure["method"] == "none":
            assert figure["parameters"] == study.sizes(figure["model"], 10)[0]
            continue
        cell = figure["model"], figure["method"], figure["keep"]
        counts = study.count(*cell), study.count(*cell, raw=True)
        if figure["parameters"] not in counts:
            strange.append((figure["strategy"], *cell))
    assert strange == [("scratch", "resnet50", "tt", 0.1)]  # printed there is the count of ResNet-34


def test_trains_of_the_study_have_no_rank_but_that_between_the_taps() -> None:
    study = script("study")
    for o, i in ((64, 64), (128, 64), (512, 512)):
        for keep in (0.1, 0.2, 0.5, 0.8):
            ranks = study.tt_ranks((o, i, 3, 3), keep)
            usable = tuple(study.formats["tt"].skeleton((i, 3, 3, o), ranks).ranks.values())
            middle = min(ranks[1], 3 * min(i, o))
            assert usable == (min(i, 3 * middle), middle, min(o, 3 * middle))


@pytest.mark.parametrize("model", ["resnet50", "vgg11"])
@pytest.mark.parametrize("keep", [0.1, 0.8])
@pytest.mark.parametrize("method", ["cp", "tucker", "tt"])
def test_our_layers_store_no_more_than_those_of_the_study(model: str, method: str, keep: float) -> None:
    study = script("study")
    with torch.device("meta"):
        network, example = study.networks[model](10), torch.empty(2, 3, 32, 32)
    plan = study.study_plan(network, model, method, keep, example)
    for name, layers in plan.layers.items():
        shape = tuple(network.get_submodule(name).weight.shape)
        ours, theirs = layers["weight"].numel(shape), study.stored(method, shape, keep)
        assert ours <= theirs
        if shape[2:] == (3, 3) and method != "tt":
            extra = study.cp_ranks(shape, keep)[0] if method == "cp" else 3**2 + 3**2
            assert ours == theirs - extra


def test_a_run_measures_each_cell_and_its_dense_network(finished: Path) -> None:
    found = results(finished)
    assert list(found) == [
        "digits_cnn-pretrained_finetuned-tenfold-channel_svd-0.2",
        "digits_cnn-pretrained_finetuned-tucker-0.2",
        "digits_cnn-scratch-dense-1",
    ]
    for result in found.values():
        assert result["accuracy"] > 0.8
        assert result["dense_accuracy"] == found["digits_cnn-scratch-dense-1"]["accuracy"]
        assert 1 <= result["training"]["epochs"] <= 2
        assert result["training"]["seconds"] > 0
        assert result["machine"]["threads"] == torch.get_num_threads()
        assert result["data"]["test"] == 359


def test_ours_store_no_more_than_the_study_at_the_same_keep(finished: Path) -> None:
    ours = results(finished)["digits_cnn-pretrained_finetuned-tenfold-channel_svd-0.2"]
    most = script("study").allowance("digits_cnn", 0.2)
    assert 0.98 * most <= ours["parameters"] <= most < ours["dense_parameters"]


def test_a_finished_cell_is_not_measured_again(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("*.json")}
    assert run(finished) == 0
    assert {path: path.stat().st_mtime_ns for path in finished.glob("*.json")} == before


def test_a_run_stopped_after_every_epoch_ends_with_the_same_results(finished: Path, tmp_path: Path) -> None:
    statuses = [run(tmp_path, "--minutes", "0")]
    while statuses[-1] == 3 and len(statuses) < 20:
        statuses.append(run(tmp_path, "--minutes", "0"))
    assert statuses[-1] == 0
    assert len(statuses) > 6  # the dense network alone takes two epochs and a test
    assert measured(tmp_path) == measured(finished)
    assert not list((tmp_path / "work" / "states").iterdir())


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_results(finished: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "run.py"), *TINY, *TWO, "--out", str(tmp_path)]
    states = tmp_path / "work" / "states"
    for cell in ("digits_cnn-scratch-dense-1", "digits_cnn-pretrained_finetuned-tucker-0.2"):
        with subprocess.Popen(command) as process:
            while process.poll() is None and not (states / f"{cell}.safetensors").exists():
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert run(tmp_path) == 0
    assert measured(tmp_path) == measured(finished)


def test_another_protocol_in_the_same_folder_is_refused(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        run(finished, "--seed", "1")
    assert error.value.code == 2
    assert "was measured under another protocol" in capsys.readouterr().err


def test_a_network_that_was_made_under_another_protocol_is_refused(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = ["--strategy", "pretrained_no_finetune", "--method", "tenfold-channel_svd", "--keep", "0.2"]
    with pytest.raises(SystemExit) as error:
        script("run").main([*TINY, *cell, "--correct", "--out", str(finished)])
    assert error.value.code == 2
    assert "was made under another protocol" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "name", "value"), [("--tune-lr", "lr", 0.003), ("--tune-taught", "taught", 0.0)]
)
def test_options_of_tuning_change_ours_alone(option: str, name: str, value: float) -> None:
    line = script("run")
    given = ["--data", "digits", "--out", "unused", "--reduced"]
    before, after = (
        line.asked_protocol(line.parser().parse_args([*given, *more])) for more in ((), (option, str(value)))
    )
    assert getattr(after.own, name) == value != getattr(before.own, name)
    assert (after.tune, after.train) == (before.tune, before.train)


def test_dense_networks_of_another_folder_are_used(finished: Path, tmp_path: Path) -> None:
    arguments = [*TINY, "--strategy", "pretrained_no_finetune", "--method", "cp", "--keep", "0.5"]
    main = script("run").main
    assert main([*arguments, "--out", str(tmp_path), "--dense", str(finished)]) == 0
    assert list(results(tmp_path)) == ["digits_cnn-pretrained_no_finetune-cp-0.5"]


def test_networks_from_scratch_start_from_factors_and_train(tmp_path: Path) -> None:
    arguments = [*TINY, "--strategy", "scratch", "--method", "cp", "tenfold", "--keep", "0.2"]
    assert script("run").main([*arguments, "--out", str(tmp_path)]) == 0
    found = results(tmp_path)
    assert len(found) == 3
    for name in ("cp", "tenfold"):
        result = found[f"digits_cnn-scratch-{name}-0.2"]
        assert result["parameters"] < 0.25 * result["dense_parameters"]
        first, last = result["training"]["trace"][0], result["training"]["trace"][-1]
        assert last["train_loss"] < first["train_loss"]


def test_the_table_stands_beside_the_published_figures(finished: Path, tmp_path: Path) -> None:
    table = script("table")
    gathered = tmp_path / "all.json"
    table.main([str(finished), "--gather", str(gathered)])
    text = (finished / "table.md").read_text()
    assert "| digits_cnn | 0.2 | tucker | 54,209 |" in text
    assert table.tables(table.results(gathered), table.published()) == text


def test_ours_meets_two_bounds_of_the_whole_network(tmp_path: Path) -> None:
    line = ["--data", "digits", "--reduced", "--epochs", "1", "--precision", "no", "--out", str(tmp_path)]
    ours = ["--strategy", "pretrained_no_finetune", "--method", "tenfold", "--keep", "0.3", "--flops", "0.3"]
    script("run").main([*line, *ours])
    (result,) = (r for r in results(tmp_path).values() if r["method"] == "tenfold")
    assert result["parameters"] <= 0.32 * result["dense_parameters"]  # 0.3 of the layers of the study
    assert result["flops"] <= 0.3 * result["dense_flops"]
    assert result["protocol"]["flops"] == 0.3


def test_a_row_says_what_was_published_for_the_same_cell() -> None:
    table = script("table")
    result = {"model": "resnet18", "strategy": "pretrained_finetuned", "keep": 0.1, "accuracy": 0.93}
    result |= {"parameters": 1_288_000, "dense_accuracy": 0.92, "flops": 25, "dense_flops": 100}
    rows = [
        table.line(result | {"method": method}, table.beside(result | {"method": method}, table.published()))
        for method in ("tucker", "tenfold")
    ]
    assert rows == [
        "| resnet18 | 0.1 | tucker | 1,288,000 | 25.0 % | 93.00 | -1.00 "
        "| Tucker | 1,288,513 | 89.40 | 1.03 |",
        "| resnet18 | 0.1 | tenfold | 1,288,000 | 25.0 % | 93.00 | -1.00 | CP | 1,288,468 | 89.70 | 0.73 |",
    ]


def test_images_come_from_a_folder_of_two_files(tmp_path: Path) -> None:
    images, protocol = script("images"), script("protocol").REDUCED
    for part, count in (("train", 40), ("test", 10)):
        pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
        np.savez(tmp_path / f"{part}.npz", images=pixels, labels=np.arange(count) % 10)
    data = images.load_data(str(tmp_path), protocol, torch.device("cpu"))
    assert (len(data.train), len(data.valid), len(data.test), data.classes) == (36, 4, 10, 10)
    assert data.test.mean == data.train.mean


def test_a_folder_without_images_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script("run").main(["--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert "has no train.parquet and no train.npz" in capsys.readouterr().err


@pytest.mark.parametrize(
    "asked, message",
    [(["--method", "magic"], "there is no method magic"), (["--keep", "some"], "could not convert")],
)
def test_cells_that_do_not_exist_are_refused(
    asked: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        script("run").main([*TINY, "--out", str(tmp_path), *asked])
    assert message in capsys.readouterr().err
