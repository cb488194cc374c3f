"""Train a small transformer language model of factorized layers only, beside its dense twin.

Both learn letter by letter to spell the words that Python's `help()` is written in, and are judged by words
that they have not seen. They see as much in the same number of steps; the factorized one has four times fewer
parameters. Run it with `python examples/train_language_model.py`; it takes some minutes on two cores.
`--steps 20` is a quick look, `--seed 0 1 2` says how much of a difference is chance.
"""

import argparse
import math
import random
import re
import time
from dataclasses import dataclass
from pydoc_data.topics import topics
from statistics import mean, stdev

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold.nn import FactorizedEmbedding, FactorizedLinear, FactorizedTransformerEncoderLayer

WIDTH, HIDDEN, HEADS, LAYERS = 128, 512, 4, 2
LETTERS = "\nabcdefghijklmnopqrstuvwxyz"
CONTEXT, BATCH = 64, 16
TABLE_RANK, POSITION_RANK, ATTENTION_RANK, HIDDEN_RANK, BLOCKS = 16, 40, 1, 3, 8


@dataclass(frozen=True)
class Kind:
    """Which weights a model has, and how it is trained: each kind by what suits it best of a few choices."""

    factorized: bool
    rate: float
    dropout: float


KINDS = {"dense": Kind(False, 4e-3, 0.2), "factorized": Kind(True, 1.2e-2, 0.1)}


class LanguageModel(nn.Module):
    """Predicts each token from those before it, by weights that are all dense or all factorized."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.tokens = embedding(len(LETTERS), TABLE_RANK, kind)
        self.positions = embedding(CONTEXT, POSITION_RANK, kind)
        self.dropout = nn.Dropout(kind.dropout)
        self.layers = nn.ModuleList(encoder_layer(kind) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = head(kind)
        self.register_buffer("causal", torch.ones(CONTEXT, CONTEXT, dtype=torch.bool).triu(1))

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, context) -> scores (batch, context, vocabulary)."""
        x = self.dropout(self.tokens(tokens) + self.positions(torch.arange(CONTEXT)))
        for layer in self.layers:
            x = layer(x, self.causal, is_causal=True)
        return self.head(self.norm(x))


def embedding(rows: int, rank: int, kind: Kind) -> nn.Module:
    """A table of small numbers; its rows are looked up in the factors."""
    if kind.factorized:
        return FactorizedEmbedding(rows, WIDTH, rank=rank, std=0.1)
    table = nn.Embedding(rows, WIDTH)
    nn.init.normal_(table.weight, std=0.1)
    return table


def encoder_layer(kind: Kind) -> nn.Module:
    """Attention and feed-forward, with weights in blocks of low rank."""
    settings = {"dropout": kind.dropout, "activation": "gelu", "batch_first": True, "norm_first": True}
    if not kind.factorized:
        return nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, **settings)
    attention, feed_forward = ("q", "k", "v", "out"), ("linear1", "linear2")
    return FactorizedTransformerEncoderLayer(
        WIDTH,
        HEADS,
        HIDDEN,
        **settings,
        format="sliced_lowrank",
        rank=dict.fromkeys(attention, ATTENTION_RANK) | dict.fromkeys(feed_forward, HIDDEN_RANK),
        layout=dict.fromkeys(attention, blocks(WIDTH, WIDTH))
        | {"linear1": blocks(HIDDEN, WIDTH), "linear2": blocks(WIDTH, HIDDEN)},
    )


def blocks(outputs: int, inputs: int) -> str:
    """The layout of a matrix of blocks, each of low rank, which reach all outputs from all inputs.

    One slice joins a block of the inputs to every `BLOCKS`-th output. These are Monarch matrices (Dao et al.
    2022, arXiv:2204.00595), of higher rank than two thin matrices with as many elements.
    """
    split = f"(o0={outputs // BLOCKS} o1={BLOCKS}) (i0={BLOCKS} i1={inputs // BLOCKS})"
    return f"{split} -> o0 (o1 i0) i1"


def head(kind: Kind) -> nn.Module:
    if kind.factorized:
        return FactorizedLinear(WIDTH, len(LETTERS), rank=TABLE_RANK)
    return nn.Linear(WIDTH, len(LETTERS))


def corpus() -> tuple[Tensor, Tensor]:
    """The letters to train on and those to validate on: every tenth of all words, in a random order."""
    words = sorted(set(re.findall(r"\b[a-z]{3,}\b", " ".join(topics.values()))))
    random.Random(0).shuffle(words)
    held = len(words) // 10
    train, valid = ("".join(f"{word}\n" for word in part) for part in (words[held:], words[:held]))
    return numbers(train), numbers(valid)


def numbers(text: str) -> Tensor:
    """Letters as numbers, a line's end as 0."""
    return torch.tensor([LETTERS.index(letter) for letter in text])


def train(model: nn.Module, tokens: Tensor, steps: int, rate: float) -> None:
    """AdamW, whose rate rises at first and then falls to zero; a step sees random stretches of the words."""
    optimizer = torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.98), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: pace(step, steps))
    model.train()
    for _ in range(steps):
        starts = torch.randint(len(tokens) - CONTEXT, (BATCH,))
        stretches = tokens[starts.unsqueeze(1) + torch.arange(CONTEXT + 1)]
        optimizer.zero_grad()
        loss(model, stretches).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def pace(step: int, steps: int) -> float:
    """The learning rate at a step, as a part of the largest."""
    return min(1.0, 10 * (step + 1) / steps) * (0.5 + 0.5 * math.cos(math.pi * step / steps))


def loss(model: nn.Module, stretches: Tensor) -> Tensor:
    """Nats for each letter."""
    return F.cross_entropy(model(stretches[:, :-1]).flatten(0, 1), stretches[:, 1:].flatten())


@torch.no_grad()
def validation_loss(model: nn.Module, tokens: Tensor) -> float:
    """The loss over the text in stretches, one after the other."""
    stretches = tokens.unfold(0, CONTEXT + 1, CONTEXT)
    model.eval()
    return sum(float(loss(model, part)) * len(part) for part in stretches.split(64)) / len(stretches)


def trained(kind: Kind, data: tuple[Tensor, Tensor], steps: int, seed: int) -> tuple[int, float, float]:
    """Parameters, validation loss and seconds of training."""
    torch.manual_seed(seed)
    model = LanguageModel(kind)
    start = time.perf_counter()
    train(model, data[0], steps, kind.rate)
    seconds = time.perf_counter() - start
    return sum(p.numel() for p in model.parameters()), validation_loss(model, data[1]), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    data = corpus()
    print(f"{len(data[0]):,} letters to train on, {len(data[1]):,} to validate on, {options.steps} steps")
    print(f"{'model':12} {'parameters':>10} {'validation loss':>16} {'seconds':>8}")
    for name, kind in KINDS.items():
        runs = [trained(kind, data, options.steps, seed) for seed in options.seed]
        losses = [run[1] for run in runs]
        spread = f" ± {stdev(losses):.3f}" if len(losses) > 1 else ""
        seconds = mean(run[2] for run in runs)
        print(f"{name:12} {runs[0][0]:>10,} {f'{mean(losses):.3f}{spread}':>16} {seconds:>8.0f}")


if __name__ == "__main__":
    main()
