"""A killed run goes on: the same numbers to the last bit, and no stranger's file."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tenfold.compress.recovery.distill import Distillation
from tenfold.compress.recovery.trace import Epoch, Tuned
from tenfold.compress.recovery.tune import tune
from tenfold.core.errors import CheckpointError, TargetError
from tenfold.data import ImageBatches, ImageData
from tenfold.data.augment import Augmented


class Killed(Exception):
    """What a power cut would do."""


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    conv = nn.Conv2d(1, 4, 3, padding=1).to(memory_format=torch.channels_last)
    return nn.Sequential(conv, nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(64, 3))


def images(seed: int = 0) -> ImageData:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (48, 1, 4, 4), dtype=torch.uint8, generator=generator)
    return ImageData(pixels, torch.randint(3, (48,), generator=generator))


def shuffled(own: bool = True) -> ImageBatches:
    generator = torch.Generator().manual_seed(5) if own else None
    return images().batches(16, shuffle=True, generator=generator)


def run(model: nn.Module, kill_after: int | None = None, own: bool = True, **options: Any) -> Tuned:
    torch.manual_seed(3)

    def told(epoch: Epoch) -> None:
        if epoch.number == kill_after:
            raise Killed

    options = {"epochs": 5, "lr": 0.01, "schedule": "cosine", "patience": None, **options}
    return tune(model, shuffled(own), images(1).batches(48), progress=told, **options)


def without_time(tuned: Tuned) -> Tuned:
    return replace(tuned, trace=tuple(replace(epoch, seconds=0.0) for epoch in tuned.trace))


def equal(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("own", [True, False], ids=["own generator", "torch's generator"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": partial(torch.optim.SGD, momentum=0.9), "lr": 0.1, "clip": 0.5},
        {"optimizer": torch.optim.AdamW, "weight_decay": 0.1, "label_smoothing": 0.1, "precision": "bf16"},
        {"teacher": net(1), "distillation": Distillation(features=("0",))},
        {"patience": 1, "lr": 0.3},
    ],
    ids=["adam", "sgd", "bf16", "teacher", "patience"],
)
def test_a_killed_run_ends_as_an_uninterrupted_one(
    tmp_path: Path, options: dict[str, Any], own: bool
) -> None:
    whole, broken = net(), net()
    expected = run(whole, own=own, **options)
    for kill_after in (1, 3):
        if kill_after < len(expected.trace):
            with pytest.raises(Killed):
                run(broken, kill_after, own, resume=tmp_path / "run.safetensors", **options)
            broken = net()
    tuned = run(broken, own=own, resume=tmp_path / "run.safetensors", **options)
    assert without_time(tuned) == without_time(expected)
    assert equal(broken, whole)
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]


def test_without_validation_data_the_last_weights_are_equal_too(tmp_path: Path) -> None:
    whole, broken = net(), net()
    torch.manual_seed(3)
    tune(whole, shuffled(), epochs=3)
    torch.manual_seed(3)

    def kill(epoch: Epoch) -> None:
        raise Killed

    with pytest.raises(Killed):
        tune(broken, shuffled(), epochs=3, resume=tmp_path / "run", progress=kill)
    tuned = tune(broken, shuffled(), epochs=3, resume=tmp_path / "run")
    assert equal(broken, whole) and tuned.best == 3


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    first, second = net(), net()
    tuned = run(first, resume=tmp_path / "run")
    before = (tmp_path / "run").read_bytes()
    assert run(second, kill_after=5, resume=tmp_path / "run") == tuned
    assert run(first, kill_after=5, resume=tmp_path / "run") == tuned, "also from where it ended"
    assert equal(first, second)
    assert (tmp_path / "run").read_bytes() == before


def test_generators_of_wrapped_batches_are_kept_too(tmp_path: Path) -> None:
    def augmented() -> Augmented:
        return Augmented(shuffled(), shift=1, generator=torch.Generator().manual_seed(6))

    whole, broken = net(), net()
    torch.manual_seed(3)
    tune(whole, augmented(), epochs=3)

    def kill(epoch: Epoch) -> None:
        raise Killed

    torch.manual_seed(3)
    with pytest.raises(Killed):
        tune(broken, augmented(), epochs=3, resume=tmp_path / "run", progress=kill)
    tune(broken, augmented(), epochs=3, resume=tmp_path / "run")
    assert equal(broken, whole)


def killed(path: Path) -> Path:
    with pytest.raises(Killed):
        run(net(), 1, resume=path)
    return path


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"lr": 0.02}, r"lr was 0\.01, and is 0\.02"),
        ({"epochs": 6}, "epochs was 5, and is 6"),
        ({"precision": "bf16"}, "precision was no, and is bf16"),
        ({"optimizer": torch.optim.SGD}, "optimizer.type was Adam, and is SGD"),
        ({"optimizer": partial(torch.optim.Adam, eps=1e-3)}, "optimizer.groups was"),
        ({"teacher": net(1)}, "teacher was None"),
        ({"own": False}, "generators was 1, and is 0"),
    ],
)
def test_other_options_are_refused(tmp_path: Path, options: dict[str, Any], problem: str) -> None:
    path = killed(tmp_path / "run")
    with pytest.raises(CheckpointError, match=f"is of another training: {problem}"):
        run(net(), resume=path, **options)


def test_another_model_is_refused(tmp_path: Path) -> None:
    path, frozen = killed(tmp_path / "run"), net()
    frozen[0].requires_grad_(False)
    wider = nn.Sequential(*net()[:5], nn.Linear(64, 4))
    with pytest.raises(
        CheckpointError, match=r"model\.5\.weight was float32 \[3, 64\] trained, and is float32 \[4"
    ):
        run(wider, resume=path)
    with pytest.raises(
        CheckpointError, match=r"model\.0\.weight was .* trained, and is float32 \[4, 1, 3, 3\]\."
    ):
        run(frozen, resume=path)
    with pytest.raises(CheckpointError, match="with other weights at its start"):
        run(net(seed=1), resume=path)


def test_another_teacher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(net(), 1, resume=tmp_path / "run", teacher=net(1))
    with pytest.raises(CheckpointError, match="or in its teacher"):
        run(net(), resume=tmp_path / "run", teacher=net(2))


def test_files_of_others_are_refused_and_stay(tmp_path: Path) -> None:
    text, arrays = tmp_path / "note.txt", tmp_path / "model.safetensors"
    text.write_text("important")
    save_file({"weight": torch.ones(2)}, arrays)
    with pytest.raises(CheckpointError, match=r"note\.txt' is no record of a training: it cannot be read"):
        run(net(), resume=text)
    with pytest.raises(CheckpointError, match="its format is None, not tenfold-tuning-1"):
        run(net(), resume=arrays)
    assert text.read_text() == "important"
    with pytest.raises(TargetError, match="there is no folder"):
        run(net(), resume=tmp_path / "missing" / "run")


def test_a_record_cut_short_or_emptied_is_refused(tmp_path: Path) -> None:
    path = killed(tmp_path / "run")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        run(net(), resume=path)
    save_file({"a": torch.ones(1)}, path, {"format": "tenfold-tuning-1", "facts": "{}"})
    with pytest.raises(CheckpointError, match="is no complete record of this training"):
        run(net(), resume=path)


def test_the_record_is_plain_tensors(tmp_path: Path) -> None:
    path = killed(tmp_path / "run")
    names = {name.partition("/")[0] for name in load_file(path)}
    assert names == {"model", "best", "optimizer", "draws"}


def test_an_optimizer_that_cannot_be_written_down_is_an_error(tmp_path: Path) -> None:
    class Listing(torch.optim.SGD):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            self.state[self.param_groups[0]["params"][0]]["past"] = [Tensor()]

    with pytest.raises(CheckpointError, match=r"Listing keeps a list as '0\.past'"):
        run(net(), resume=tmp_path / "run", optimizer=Listing)


class Masked(nn.Module):
    """A layer beside entries that are infinite, or no numbers."""

    def __init__(self, *entries: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(16, 3)
        self.register_buffer("mask", torch.tensor([*entries, 1.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))


@pytest.mark.parametrize("entry", [-inf, inf, nan])
def test_entries_that_are_not_finite_do_not_keep_a_run_from_going_on(tmp_path: Path, entry: float) -> None:
    with pytest.raises(Killed):
        run(Masked(entry, 0.0), 2, resume=tmp_path / "run")
    whole, broken = Masked(entry, 0.0), Masked(entry, 0.0)
    expected = run(whole)
    assert without_time(run(broken, resume=tmp_path / "run")) == without_time(expected)
    assert torch.equal(broken.layer.weight, whole.layer.weight)


def test_infinite_entries_in_other_places_are_other_weights(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(Masked(-inf, 0.0), 1, resume=tmp_path / "run")
    for others in ((0.0, -inf), (inf, 0.0), (0.0, 0.0)):
        with pytest.raises(CheckpointError, match="with other weights at its start"):
            run(Masked(*others), resume=tmp_path / "run")


def test_a_model_interrupted_amid_an_epoch_without_validation_data_goes_on(tmp_path: Path) -> None:
    class Interrupting:
        """Batches that end in an interrupt in the third epoch."""

        def __init__(self) -> None:
            self.batches, self.epochs = shuffled(), 0
            self.generator = self.batches.generator

        def __iter__(self) -> Iterator[Any]:
            self.epochs += 1
            for k, batch in enumerate(self.batches):
                if self.epochs == 3 and k == 2:
                    raise KeyboardInterrupt
                yield batch

    whole, broken, batches = net(), net(), Interrupting()
    torch.manual_seed(3)
    tune(whole, shuffled(), epochs=4, lr=0.05)
    torch.manual_seed(3)
    with pytest.raises(KeyboardInterrupt):
        tune(broken, batches, epochs=4, lr=0.05, resume=tmp_path / "run")
    recorded = load_file(tmp_path / "run")
    assert torch.equal(broken[5].weight, recorded["model/5.weight"])
    tune(broken, batches, epochs=4, lr=0.05, resume=tmp_path / "run")
    assert equal(broken, whole)
