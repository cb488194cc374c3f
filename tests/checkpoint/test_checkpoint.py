"""A checkpoint gives back the model exactly, holds no pickle, and is whole or absent."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from tenfold import Budget, compress, load, save
from tenfold.checkpoint import arrays as checkpoint_arrays
from tenfold.checkpoint import folder as checkpoint_folder
from tenfold.checkpoint.arrays import ARRAYS_FORMAT, read_arrays, reordered, stored_orders, write_arrays
from tenfold.checkpoint.header import Header
from tenfold.compress.presets import presets
from tenfold.core.errors import CheckpointError, TargetError, TenfoldError
from tenfold.nn import FactorizedConv


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3, 2), nn.Flatten(),
        nn.Linear(24 * 9, 10),
    )  # fmt: skip


X = torch.randn(2, 3, 8, 8)


@pytest.mark.parametrize("preset", list(presets))
def test_reloaded_model_gives_equal_outputs(preset: str, tmp_path: Path) -> None:
    small, plan, _ = compress(net().eval(), Budget(params=0.5), example=X, preset=preset)
    save(small, tmp_path / "small", plan)
    loaded = load(net, tmp_path / "small")
    assert torch.equal(loaded(X), small(X))
    assert not loaded.training
    assert [p.stride() for p in loaded.parameters()] == [p.stride() for p in small.parameters()]


def test_loading_allocates_no_dense_weight_and_keeps_parameters_trainable(tmp_path: Path) -> None:
    small, plan, _ = compress(net(), Budget(params=0.5), example=X)
    save(small, tmp_path / "small", plan)
    loaded = load(net, tmp_path / "small")
    assert not any(t.is_meta for t in loaded.state_dict().values())
    loaded(X).sum().backward()
    assert all(p.grad is not None for p in loaded.parameters())


def test_the_folder_holds_json_and_safetensors_alone(tmp_path: Path) -> None:
    small, plan, _ = compress(net(), Budget(params=0.5), example=X)
    save(small, tmp_path / "small", plan, extra={"mean": [0.5]})
    assert sorted(p.name for p in (tmp_path / "small").iterdir()) == [
        "extra.json",
        "model.safetensors",
        "plan.json",
    ]
    with safe_open(tmp_path / "small" / "model.safetensors", "pt") as file:
        assert file.metadata()["format"] == ARRAYS_FORMAT
    assert json.loads((tmp_path / "small" / "extra.json").read_text()) == {"mean": [0.5]}


def test_a_model_may_be_saved_without_its_plan(tmp_path: Path) -> None:
    small = compress(net(), Budget(params=0.5), example=X).model.eval()
    save(small, tmp_path / "small")
    assert torch.equal(load(net(), tmp_path / "small")(X), small(X))


def test_a_failing_save_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, plan, _ = compress(net().eval(), Budget(params=0.5), example=X)
    save(small, tmp_path / "small", plan)

    def broken(model: nn.Module, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint_folder, "write_arrays", broken)
    with pytest.raises(KeyboardInterrupt):
        save(small, tmp_path / "small", plan)
    assert [p.name for p in tmp_path.iterdir()] == ["small"]
    assert torch.equal(load(net, tmp_path / "small")(X), small(X))


def test_a_folder_that_is_not_ours_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("dear")
    with pytest.raises(TenfoldError, match="thesis"):
        save(compress(net(), Budget(params=0.5), example=X).model, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter1.tex").exists()


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no plan\.json"):
        load(net, tmp_path)
    small, plan, _ = compress(net(), Budget(params=0.5), example=X)
    save(small, tmp_path / "small", plan)
    arrays = tmp_path / "small" / "model.safetensors"
    arrays.write_bytes(arrays.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(net, tmp_path / "small")
    arrays.unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        load(net, tmp_path / "small")


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    small, plan, _ = compress(net(), Budget(params=0.5), example=X)
    save(small, tmp_path / "small", plan)
    with pytest.raises(CheckpointError, match="does not fit the architecture"):
        load(lambda: nn.Sequential(nn.Linear(3, 3)), tmp_path / "small")
    with pytest.raises(CheckpointError, match="fit the architecture"):
        load(lambda: nn.Sequential(*net(), nn.Linear(10, 10)), tmp_path / "small")


def test_a_plan_that_does_not_describe_the_model_is_refused(tmp_path: Path) -> None:
    small = compress(net(), Budget(params=0.5), example=X).model
    other = compress(net(), Budget(params=0.25), example=X).plan
    with pytest.raises(CheckpointError, match="does not describe"):
        save(small, tmp_path / "small", other)
    assert not list(tmp_path.iterdir())


def test_tied_parameters_are_written_once(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        model = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 40), nn.Linear(40, 40, bias=False))
        model[1].weight = model[0].weight
        return model

    x = torch.randn(2, 40)
    small, plan, _ = compress(tied().eval(), Budget(params=0.5), example=x, preset="weight_svd")
    save(small, tmp_path / "small", plan)
    with safe_open(tmp_path / "small" / "model.safetensors", "pt") as file:
        assert sum("weight.left" in name for name in file.keys()) == 2  # noqa: SIM118
    loaded = load(tied, tmp_path / "small")
    assert torch.equal(loaded(x), small(x))
    assert loaded[0].weight is loaded[1].weight


def test_buffers_outside_the_state_dict_are_built(tmp_path: Path) -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()
            self.register_buffer("shift", torch.arange(10.0), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x) + self.shift

    small, plan, _ = compress(Shifted().eval(), Budget(params=0.5), example=X)
    save(small, tmp_path / "small", plan)
    assert torch.equal(load(Shifted, tmp_path / "small")(X), small(X))


def test_factors_written_in_another_order_are_brought_to_the_layers() -> None:
    """As after a change of the planner: the file says in which order the axes of each factor lie."""
    model = nn.Sequential(FactorizedConv(6, 8, (3, 3), rank=4, format="cp", layout="o i h w -> o i (h w)"))
    state = {k: v.detach() for k, v in model.state_dict().items()}
    orders = {k: tuple(v) for k, v in stored_orders(model).items()}
    key = next(k for k, axes in orders.items() if set(axes) == {"h", "w", "R"})
    turned = ("w", "h", "R")
    sizes = model[0].weight.network.size_of
    there = [sizes[a] for a in orders[key]]
    other = state[key].reshape(there).permute([orders[key].index(a) for a in turned]).contiguous()
    back = reordered(state | {key: other}, orders | {key: turned}, model)
    assert all(torch.equal(back[k], state[k]) for k in state)


def buffers(**tensors: torch.Tensor) -> nn.Module:
    model = nn.Module()
    for name, tensor in tensors.items():
        model.register_buffer(name, tensor)
    return model


Z = torch.tensor([1 + 2j, 3 - 4j])
REAL = torch.tensor([1.0, -2.0])


@pytest.mark.parametrize(
    "views",
    [{"a": Z, "b": Z.conj()}, {"a": Z.imag, "b": Z.conj().imag}, {"a": REAL, "b": REAL.view(torch.int32)}],
    ids=["conjugate", "negative", "type"],
)
def test_views_that_read_one_storage_differently_are_written_apart(
    views: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    for stored in (views, dict(reversed(views.items()))):
        model = buffers(**stored)
        write_arrays(model, tmp_path / "arrays")
        found = read_arrays(tmp_path / "arrays", model)
        assert all(found[name].dtype == views[name].dtype for name in views)
        assert all(torch.equal(found[name], views[name]) for name in views)


class Counting(nn.Module):
    """Has an entry in its state that is no tensor."""

    def get_extra_state(self) -> dict[str, int]:
        return {"count": 1}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(Counting()), r"'0\._extra_state'.*no tensor but of type dict"),
        (buffers(b=torch.empty(2, device="meta")), "'b'.*meta device"),
        (buffers(b=torch.eye(2).to_sparse()), "'b'.*sparse"),
        (buffers(b=Z.to(torch.complex128)), r"'b'.*torch\.complex128"),
    ],
    ids=["extra", "meta", "sparse", "complex128"],
)
def test_an_entry_that_cannot_be_stored_is_named(model: nn.Module, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        write_arrays(model, tmp_path / "arrays")
    with pytest.raises(CheckpointError, match=message):
        save(model, tmp_path / "small")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")
def test_a_quantized_entry_that_cannot_be_stored_is_named(tmp_path: Path) -> None:
    model = buffers(b=torch.quantize_per_tensor(REAL, 0.1, 0, torch.qint8))
    with pytest.raises(CheckpointError, match=r"'b'.*quantized"):
        write_arrays(model, tmp_path / "arrays")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_our_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(checkpoint_arrays, "save_file", full)
    with pytest.raises(TargetError, match="No space left on device"):
        save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "small")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_all_files_have_the_permissions_that_open_gives(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "small")
    finally:
        os.umask(before)
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "small").iterdir()} == {0o666 & ~mask}


@pytest.mark.parametrize(
    ("part", "text"),
    [("stored", '{"a": [1, "R"]}'), ("stored", '{"a": [["a"], "R"]}'), ("aliases", "[" * 100_000)],
    ids=["number", "list", "deep"],
)
def test_a_damaged_header_is_our_error(part: str, text: str) -> None:
    with pytest.raises(CheckpointError, match=f"damaged part '{part}'"):
        Header.read({part: text}, Path("model.safetensors"))
