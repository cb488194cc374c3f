"""The rows of the benchmark: a layer, its input, and what it is compared with."""

from collections.abc import Callable
from dataclasses import dataclass

import hand_conv
import hand_linear
import hand_lstm
import hand_table
import peers
import torch
from hand import Chains, khatri_rao
from torch import Tensor, nn

from tenfold.compress.presets import presets
from tenfold.formats import CP
from tenfold.nn import FactorizedConv, FactorizedEmbedding, FactorizedLinear, FactorizedLSTM

IMAGE = (4, 256, 28, 28)
SEQUENCE = (32, 8, 512)
TABLE = (100_000, 256)
BOTH_IN_TWO = "(o0=32 o1=32) (i0=32 i1=32)"
BOTH_IN_THREE = "(v0=40 v1=50 v2=50) (o0=8 o1=8 o2=4)"
FOUR_MODES, SIX_MODES = f"{BOTH_IN_TWO} -> o0 o1 i0 i1", f"{BOTH_IN_THREE} -> v0 v1 v2 o0 o1 o2"
GATES = "(o0=64 o1=32) (i0=16 i1=32) -> (o0 i0) (o1 i1)"


@dataclass(frozen=True)
class Row:
    """`layer` makes ours; `by_hand` and `peers` take its factors."""

    kind: str
    format: str
    shape: tuple[int, ...]
    layer: Callable[[], nn.Module]
    by_hand: Callable[..., Chains]
    peers: Callable[..., Chains] | None = None

    @property
    def name(self) -> str:
        """Such as "linear cp 32×1024"."""
        return f"{self.kind} {self.format} {'×'.join(map(str, self.shape))}"

    def input(self) -> Tensor:
        """Random numbers, or random indices for an embedding."""
        if self.kind == "embedding":
            return torch.randint(TABLE[0], self.shape)
        return torch.randn(self.shape)

    def contenders(self) -> Chains:
        """The dense layer, the chains by hand, TensorLy-Torch's and ours; all hold the same factors."""
        torch.manual_seed(0)
        ours = self.layer()
        found = {"dense": ours.to_dense()}
        found |= {f"by hand, {name}": chain for name, chain in self.by_hand(ours).items()}
        if self.peers and peers.tltorch:
            found |= self.peers(ours)
        return found | {"ours": ours}


def linear(format: str, rank: object, layout: str, rows: int) -> Row:
    """1024 -> 1024."""
    shape = (rows, 1024)

    def layer() -> FactorizedLinear:
        return FactorizedLinear(1024, 1024, rank=rank, format=format, layout=layout, example=shape)

    return Row("linear", format, shape, layer, getattr(hand_linear, format), peers.linear)


def conv(preset: str, rank: object, peer: Callable[..., Chains] | None = None) -> Row:
    """256 -> 256 channels, 3×3, as a preset factors it."""
    dense = nn.Conv2d(256, 256, 3, padding=1)
    scheme = presets[preset](dense, "conv")

    def layer() -> FactorizedConv:
        made = FactorizedConv(
            256, 256, (3, 3), rank=rank, format=scheme.preset.format, layout=str(scheme.layout), padding=1,
            example=IMAGE,
        )  # fmt: skip
        if preset == "cp3":
            separate_taps(made)
        return made

    return Row("conv", preset, IMAGE, layer, getattr(hand_conv, preset), peer)


def train() -> Row:
    """The same convolution as TensorLy-Torch's train, over inputs, height, width and outputs."""

    def layer() -> FactorizedConv:
        return FactorizedConv(
            256, 256, (3, 3), rank=80, format="tt", layout="o i h w -> i h w o", padding=1, example=IMAGE
        )

    return Row("conv", "tt", IMAGE, layer, hand_conv.tt, peers.conv)


def separate_taps(layer: FactorizedConv) -> None:
    """Make the taps of each component a product of height and width, so that it is also CP of order 4."""
    outputs, inputs, taps = layer.weight.value.matrices
    taps = khatri_rao(*peers.separated(taps, layer.kernel_size))
    layer.weight.set_(CP((outputs, inputs, taps)))


def embedding(format: str, rank: object, layout: str, indices: int) -> Row:
    """100 000 rows of 256."""
    shape = (indices,)

    def layer() -> FactorizedEmbedding:
        return FactorizedEmbedding(*TABLE, rank=rank, format=format, layout=layout, example=shape)

    return Row("embedding", format, shape, layer, getattr(hand_table, format), peers.embedding)


def lstm(format: str, rank: object, layout: str) -> Row:
    """512 -> 512, input and hidden weights alike."""

    def layer() -> FactorizedLSTM:
        return FactorizedLSTM(512, 512, rank=rank, format=format, layout=layout, example=SEQUENCE)

    return Row("lstm", format, SEQUENCE, layer, getattr(hand_lstm, format))


def rows() -> list[Row]:
    """All rows."""
    found = []
    for n in (32, 256):
        found += [
            linear("lowrank", 8, "o i -> o i", n),
            linear("cp", 128, FOUR_MODES, n),
            linear("tucker", (11,) * 4, FOUR_MODES, n),
            linear("tt", 8, f"{BOTH_IN_TWO} -> (o0 i0) (o1 i1)", n),
        ]
    found += [
        conv("weight_svd", 32),
        conv("channel_svd", 32),
        conv("spatial_svd", 56),
        conv("spatial_svd_w", 56),
        conv("cp3", 160, peers.conv),
        conv("cp4", 160, peers.conv),
        conv("tucker2", (72, 72, None), peers.conv),
        conv("tucker", (96, 96, 2, 2), peers.conv),
        conv("tt_conv", (9, 32)),
        train(),
    ]
    for n in (64, 1024):
        found += [
            embedding("lowrank", 16, "v o -> v o", n),
            embedding("cp", 128, SIX_MODES, n),
            embedding("tucker", (8, 8, 8, 4, 4, 4), SIX_MODES, n),
            embedding("tt", 16, f"{BOTH_IN_THREE} -> (v0 o0) (v1 o1) (v2 o2)", n),
        ]
    return [*found, lstm("lowrank", 32, "o i -> o i"), lstm("tt", 8, GATES)]


def row_named(name: str) -> Row:
    """The row that is called so."""
    return next(row for row in rows() if row.name == name)
