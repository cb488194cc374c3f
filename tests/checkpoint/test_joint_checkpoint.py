"""Layers of one tensor are saved once and loaded joined, onto the dense model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tenfold import Budget, compress, load, save
from tenfold.checkpoint.arrays import reordered, stored_orders
from tenfold.checkpoint.joint import Family, families_of
from tenfold.core.errors import CheckpointError
from tenfold.decompose import HOOI
from tenfold.formats import formats
from tenfold.nn import FactorizedGRU, joint, joint_random

LAYOUTS = {
    "lowrank": ("o i -> (o i)", "o i h w -> (o i h w)", "v o -> (v o)"),
    "sliced_lowrank": ("o i -> o i", "o i h w -> o (i h w)", "v o -> v o"),
    "kronecker": ("(o0=3 o1) i -> o0 o1 i", "o i h w -> o i (h w)", "(v0=4 v1) o -> v0 v1 o"),
}
DEFAULT = ("(o0=3 o1) (i0=3 i1) -> (o0 i0) (o1 i1)", "o i h w -> o i (h w)", "(v0=4 v1) o -> (v0 o) v1")


class Net(nn.Module):
    """A table, five equal blocks and two equal convolutions; float64."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(20, 12, padding_idx=2) for _ in range(2))
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Linear(12, 12), nn.Tanh()) for _ in range(4)))
        self.convs = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3))
        self.head = nn.Linear(12, 10, bias=False)
        self.double()

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.blocks(self.tables[0](tokens) + self.tables[1](tokens.flip(1)))
        return self.head(self.convs(x.mT.unflatten(-1, (4, 4))).mean((2, 3)))


TOKENS = torch.randint(20, (3, 16), generator=torch.Generator().manual_seed(0))


def joined(format: str = "tucker", ranks: Any = 3) -> Net:
    torch.manual_seed(0)
    model = Net().eval()
    linear, conv, table = LAYOUTS.get(format, DEFAULT)
    model.tables = joint_random(list(model.tables), ranks, format, table)
    for block, layer in zip(
        model.blocks, joint_random([b[0] for b in model.blocks], ranks, format, linear), strict=True
    ):
        block[0] = layer
    model.convs[0], model.convs[2] = joint_random([model.convs[0], model.convs[2]], ranks, format, conv)
    return model


def edited(folder: Path, change: Callable[[dict[str, str], dict[str, Tensor]], None]) -> None:
    """The arrays and their header, changed."""
    path = folder / "model.safetensors"
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
    arrays = load_file(path)
    change(metadata, arrays)
    save_file(arrays, path, metadata)


def header(folder: Path) -> dict[str, str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return dict(file.metadata())


@pytest.mark.parametrize("built", [True, False], ids=["meta", "in place"])
@pytest.mark.parametrize("format", list(formats))
def test_a_reloaded_model_gives_equal_outputs_and_stays_joined(
    format: str, built: bool, tmp_path: Path
) -> None:
    small = joined(format)
    save(small, tmp_path / "small")
    loaded = load(Net if built else Net(), tmp_path / "small")
    assert torch.equal(loaded(TOKENS), small(TOKENS))
    assert {n: p.shape for n, p in loaded.named_parameters()} == {
        n: p.shape for n, p in small.named_parameters()
    }
    assert [p.stride() for p in loaded.parameters()] == [p.stride() for p in small.parameters()]
    assert all(p.requires_grad and not p.is_meta for p in loaded.parameters())
    shared = {id(block[0].weight.shared) for block in loaded.blocks}
    assert len(shared) == 1 and loaded.convs[0].weight.shared is loaded.convs[2].weight.shared
    assert families_of(loaded) == families_of(small)


def test_what_layers_share_is_stored_once(tmp_path: Path) -> None:
    small = joined()
    save(small, tmp_path / "small")
    stored = load_file(tmp_path / "small" / "model.safetensors")
    assert sum(array.numel() for array in stored.values()) == sum(p.numel() for p in small.parameters())
    assert len([name for name in stored if "weight.shared." in name]) == 3 + 4 + 3, "one set for each family"
    assert json.loads((tmp_path / "small" / "plan.json").read_text())["layers"] == {}


def test_training_a_loaded_layer_moves_what_the_others_share(tmp_path: Path) -> None:
    save(joined("cp"), tmp_path / "small")
    loaded = load(Net, tmp_path / "small")
    x = torch.randn(2, 12, dtype=torch.float64)
    before = loaded.blocks[3](x).detach()
    optimizer = torch.optim.SGD(loaded.blocks[0].parameters(), lr=0.1)
    loaded.blocks[0](x).sum().backward()
    optimizer.step()
    assert not torch.allclose(loaded.blocks[3](x), before)


def test_joint_layers_and_planned_ones_go_together(tmp_path: Path) -> None:
    small, plan, _ = compress(
        wide().eval(), Budget(params=0.5), example=torch.randn(2, 40), preset="weight_svd"
    )
    small[0], small[1] = joint(list(wide()[:2]), HOOI(), (2, 8, 8), "o i -> o i")
    assert "2" in plan.layers
    with pytest.raises(CheckpointError, match="'0', which shares factors"):
        save(small, tmp_path / "small", plan)
    save(small, tmp_path / "small")
    loaded, x = load(wide, tmp_path / "small"), torch.randn(2, 40)
    assert torch.equal(loaded(x), small(x))
    assert list(json.loads((tmp_path / "small" / "plan.json").read_text())["layers"]) == ["2", "3"]


def wide() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(*(nn.Linear(40, 40) for _ in range(4)))


def test_a_part_of_a_family_is_saved_with_what_it_needs(tmp_path: Path) -> None:
    layers = joint_random([nn.Linear(12, 12) for _ in range(5)], 3, "tt", "o i -> o i")
    small = nn.Sequential(layers[1], nn.ReLU(), layers[4])
    save(small, tmp_path / "small")
    loaded = load(lambda: nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12)), tmp_path / "small")
    x = torch.randn(2, 12)
    assert torch.equal(loaded(x), small(x))
    assert loaded[0].weight.shared is loaded[2].weight.shared


def test_a_layer_in_two_places_and_a_tied_weight_stay_so(tmp_path: Path) -> None:
    layers = joint_random([nn.Linear(12, 12) for _ in range(4)], 3, "cp", "o i -> o i")
    layers[3].weight = layers[0].weight
    small = nn.Sequential(layers[0], layers[1], layers[0], layers[3])
    save(small, tmp_path / "small")
    loaded = load(lambda: nn.Sequential(*(nn.Linear(12, 12) for _ in range(4))), tmp_path / "small")
    x = torch.randn(2, 12)
    assert torch.equal(loaded(x), small(x))
    assert loaded[0] is loaded[2] and loaded[3] is not loaded[0]
    assert loaded[3].weight is loaded[0].weight and loaded[1].weight is not loaded[0].weight


def test_joint_parts_of_an_opened_module_are_found(tmp_path: Path) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(6, 8, num_layers=3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.rnn(x)[0]
            return y

    small = Model()
    opened = FactorizedGRU.opened(small.rnn)
    opened.hiddens = joint_random(list(opened.hiddens), 2, "tucker", "(o0=3 o1) i -> o0 o1 i")
    small.rnn = opened
    save(small.eval(), tmp_path / "small")
    loaded, x = load(Model, tmp_path / "small"), torch.randn(4, 2, 6)
    assert torch.equal(loaded(x), small(x))


def test_other_settings_and_frozen_weights_come_back(tmp_path: Path) -> None:
    def strided() -> nn.Module:
        layers = [nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, stride=2, bias=False)]
        return nn.Sequential(*layers).requires_grad_(False)

    small = nn.Sequential(*joint_random(list(strided()), 3, "cp", "o i h w -> o i h w")).eval()
    save(small, tmp_path / "small")
    loaded, x = load(strided, tmp_path / "small"), torch.randn(1, 6, 8, 8)
    assert torch.equal(loaded(x), small(x))
    assert not any(p.requires_grad for p in loaded.parameters())


def test_files_without_joint_layers_are_what_they_were(tmp_path: Path) -> None:
    """Header and names as version 1 wrote them; such a file loads, also with a header of its own."""
    small = compress(wide().eval(), Budget(params=0.5), example=torch.randn(2, 40), preset="weight_svd").model
    save(small, tmp_path / "small")
    assert sorted(header(tmp_path / "small")) == ["aliases", "format", "stored"]
    assert header(tmp_path / "small")["format"] == "tenfold-1"
    edited(tmp_path / "small", lambda metadata, _: metadata.clear() or metadata.update(by="another"))
    x = torch.randn(2, 40)
    assert torch.equal(load(wide, tmp_path / "small")(x), small(x))


def test_shared_factors_written_in_another_order_are_brought_to_the_layers() -> None:
    small = joined("tucker")
    state = {k: v.detach() for k, v in small.state_dict().items()}
    orders = stored_orders(small)
    key = next(
        k for k, axes in orders.items() if k.startswith("blocks.0") and "shared" in k and len(axes) > 2
    )
    turned = orders[key][::-1]
    sizes = small.blocks[0][0].weight.network.size_of
    other = (
        state[key].reshape([sizes[a] for a in orders[key]]).permute(*range(len(turned))[::-1]).contiguous()
    )
    back = reordered(state | {key: other}, orders | {key: turned}, small)
    assert torch.equal(back[key], state[key])


def no_shared(metadata: dict[str, str], arrays: dict[str, Tensor]) -> None:
    del arrays[next(name for name in arrays if "shared" in name)]


def no_slice(metadata: dict[str, str], arrays: dict[str, Tensor]) -> None:
    del arrays[next(name for name in arrays if "weight.arrays" in name)]


def wrong_shape(metadata: dict[str, str], arrays: dict[str, Tensor]) -> None:
    name = next(name for name in arrays if "weight.arrays" in name)
    arrays[name] = torch.zeros(7, dtype=torch.float64)


def no_description(metadata: dict[str, str], arrays: dict[str, Tensor]) -> None:
    del metadata["joint"]


def later_format(metadata: dict[str, str], arrays: dict[str, Tensor]) -> None:
    metadata["format"] = "tenfold-9"


def described(change: Callable[[dict[str, Any]], Any]) -> Any:
    def on_first(metadata: dict[str, str], arrays: dict[str, Tensor]) -> None:
        data = json.loads(metadata["joint"])
        change(data[1])
        metadata["joint"] = json.dumps(data)

    return on_first


def slice_of(family: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(iter(family["layers"].values()))
    return found


CORE = "convs.0.weight.shared.arrays_0"
DAMAGED: list[tuple[str, Any, str]] = [
    ("no shared factor", no_shared, "no array '.*shared"),
    ("no slice", no_slice, "do not fit the architecture(.|\n)*Missing key"),
    ("wrong shape", wrong_shape, "do not fit the architecture(.|\n)*size mismatch"),
    ("no description", no_description, "do not fit the architecture(.|\n)*weight.shared"),
    ("later format", later_format, "has the format 'tenfold-9', this tenfold reads tenfold-1 and tenfold-2"),
    ("no JSON", lambda m, a: m.update(joint="[{"), "damaged part 'joint'"),
    ("no list", lambda m, a: m.update(joint='{"a": 1}'), "damaged part 'joint'"),
    ("aliases", lambda m, a: m.update(aliases="[1]"), "damaged part 'aliases'"),
    ("stored", lambda m, a: m.update(stored='{"a": 1}'), "damaged part 'stored'"),
    ("order", lambda m, a: m.update(stored=json.dumps({CORE: ["x"]})), "was stored over the axes"),
    ("no format", described(lambda f: f.pop("format")), "damaged part 'joint'.*format"),
    ("no layers", described(lambda f: f.update(layers={})), "damaged part 'joint'.*no layers"),
    ("wild tie", described(lambda f: f.update(tied={"a": "b"})), "damaged part 'joint'.*'b'"),
    ("negative rank", described(lambda f: slice_of(f)["ranks"].update(R0=-1)), "-1 is no whole number"),
    ("wild factor", described(lambda f: slice_of(f)["shared"].append(9)), "factor 9 is shared"),
    ("others shared", described(lambda f: slice_of(f)["shared"].pop()), "not all the same"),
    ("wild axes", described(lambda f: slice_of(f)["factors"][0].append("Q")), "its weight and ranks"),
    ("wild layout", described(lambda f: slice_of(f).update(layout="o i")), "fit the architecture"),
    ("other rank", described(lambda f: slice_of(f)["ranks"].update(R2=2)), "fit the architecture"),
    ("other name", described(lambda f: f["layers"].update(x=slice_of(f))), "the model has no layer 'x'"),
]  # fmt: skip


@pytest.mark.parametrize("change, words", [d[1:] for d in DAMAGED], ids=[d[0] for d in DAMAGED])
def test_a_damaged_file_is_refused_in_words(change: Any, words: str, tmp_path: Path) -> None:
    save(joined(), tmp_path / "small")
    edited(tmp_path / "small", change)
    with pytest.raises(CheckpointError, match=words):
        load(Net, tmp_path / "small")


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    save(joined(), tmp_path / "small")
    with pytest.raises(CheckpointError, match=r"fit the architecture: the model has no layer 'tables\.0'"):
        load(wide, tmp_path / "small")
    other = Net()
    other.blocks[0][0] = nn.Linear(12, 13)
    with pytest.raises(CheckpointError, match="does not fit the architecture"):
        load(other, tmp_path / "small")
    assert type(other.tables[0]) is nn.Embedding, "nothing is replaced before all is made"
    save(joint_random([nn.Linear(4, 4)], 2, "cp", "o i -> o i")[0], tmp_path / "one")
    with pytest.raises(CheckpointError, match="the model is a single layer"):
        load(nn.Linear(4, 4), tmp_path / "one")


def test_a_description_goes_through_json() -> None:
    for family in families_of(joined("ht")):
        data = json.loads(json.dumps(family, default=vars))
        assert Family.from_dict(data) == family
