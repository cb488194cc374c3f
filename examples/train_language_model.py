"""Train a small transformer language model of factorized layers only, beside its dense twin.

Both read the texts of Python's `help()`, word by word, for the same number of steps; the factorized one has
four times fewer parameters. Run it with `python examples/train_language_model.py`; it takes some minutes on
two cores. `--steps 20` is a quick look, `--seeds 0 1 2` says how much of a difference is chance.
"""

import argparse
import math
import re
import time
from collections import Counter
from pydoc_data.topics import topics
from statistics import mean, stdev

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold.nn import FactorizedEmbedding, FactorizedLinear, FactorizedTransformerEncoderLayer

WIDTH, HEADS, HIDDEN, LAYERS, CONTEXT, BATCH = 128, 4, 512, 3, 64, 32
DROPOUT = 0.1
FRACTION = 0.235
"""Of the elements of each weight; with biases and normalisation a quarter of all parameters."""
RATES = {"dense": 2e-3, "factorized": 4e-3}


class LanguageModel(nn.Module):
    """Predicts each token from those before it. With a fraction, all weights are factorized."""

    def __init__(self, vocabulary: int, fraction: float | None = None) -> None:
        super().__init__()
        self.tokens = embedding(vocabulary, fraction)
        self.positions = embedding(CONTEXT, fraction)
        self.layers = nn.ModuleList(encoder_layer(fraction) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = linear(WIDTH, vocabulary, fraction)
        self.dropout = nn.Dropout(DROPOUT)
        self.register_buffer("causal", torch.ones(CONTEXT, CONTEXT, dtype=torch.bool).triu(1))

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, context) -> scores (batch, context, vocabulary)."""
        x = self.dropout(self.tokens(tokens) + self.positions(torch.arange(CONTEXT)))
        for layer in self.layers:
            x = layer(x, self.causal, is_causal=True)
        return self.head(self.norm(x))


def embedding(rows: int, fraction: float | None) -> nn.Module:
    if fraction is None:
        dense = nn.Embedding(rows, WIDTH)
        nn.init.normal_(dense.weight, std=0.1)
        return dense
    return FactorizedEmbedding(rows, WIDTH, rank=fraction, std=0.1)


def encoder_layer(fraction: float | None) -> nn.Module:
    settings = {"activation": "gelu", "batch_first": True, "norm_first": True}
    if fraction is None:
        return nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, DROPOUT, **settings)
    return FactorizedTransformerEncoderLayer(WIDTH, HEADS, HIDDEN, DROPOUT, **settings, rank=fraction)


def linear(inputs: int, outputs: int, fraction: float | None) -> nn.Module:
    return nn.Linear(inputs, outputs) if fraction is None else FactorizedLinear(inputs, outputs, rank=fraction)


def corpus() -> tuple[Tensor, Tensor, int]:
    """Tokens to train on, tokens to validate on, and the size of the vocabulary.

    Many topics repeat paragraphs of others: each paragraph is taken once, every tenth for validation. Words
    that occur five times are tokens, all others are spelled.
    """
    paragraphs = re.split(r"\n\n+", "\n\n".join(topics[name] for name in sorted(topics)))
    paragraphs = [text.strip("\n") + "\n\n" for text in dict.fromkeys(paragraphs)]
    words = [re.findall(r" ?\w+|\s+|.", text) for text in paragraphs]
    counts = Counter(word for text in words for word in text)
    letters = sorted(set("".join(counts)))
    common = sorted(word for word, n in counts.items() if n >= 5 and len(word) > 1)
    number = {token: k for k, token in enumerate(letters + common)}
    spelled = [[number[t] for w in text for t in ([w] if w in number else w)] for text in words]
    valid = [k for text in spelled[::10] for k in text]
    train = [k for n, text in enumerate(spelled) if n % 10 for k in text]
    return torch.tensor(train), torch.tensor(valid), len(number)


def train(model: nn.Module, tokens: Tensor, steps: int, rate: float) -> None:
    """AdamW with a warm-up and a cosine; every step sees random stretches of the text."""
    optimizer = torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.98), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: pace(step, steps))
    model.train()
    for _ in range(steps):
        starts = torch.randint(len(tokens) - CONTEXT, (BATCH,))
        stretch = tokens[starts.unsqueeze(1) + torch.arange(CONTEXT + 1)]
        optimizer.zero_grad()
        loss(model, stretch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def pace(step: int, steps: int) -> float:
    """The learning rate at a step as a part of the largest."""
    return min(1.0, (step + 1) / (0.1 * steps)) * (0.5 + 0.5 * math.cos(math.pi * step / steps))


def loss(model: nn.Module, stretch: Tensor) -> Tensor:
    return F.cross_entropy(model(stretch[:, :-1]).flatten(0, 1), stretch[:, 1:].flatten())


@torch.no_grad()
def validation_loss(model: nn.Module, tokens: Tensor) -> float:
    """Nats a token, over all stretches in turn."""
    model.eval()
    count = (len(tokens) - 1) // CONTEXT
    stretches = torch.stack([tokens[k * CONTEXT : (k + 1) * CONTEXT + 1] for k in range(count)])
    return mean(float(loss(model, part)) for part in stretches.split(BATCH))


def trained(kind: str, data: tuple[Tensor, Tensor, int], steps: int, seed: int) -> tuple[int, float, float]:
    """Parameters, validation loss and seconds of training."""
    torch.manual_seed(seed)
    tokens, valid, vocabulary = data
    model = LanguageModel(vocabulary, None if kind == "dense" else FRACTION)
    start = time.perf_counter()
    train(model, tokens, steps, RATES[kind])
    seconds = time.perf_counter() - start
    return sum(p.numel() for p in model.parameters()), validation_loss(model, valid), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    data = corpus()
    print(f"{len(data[0]):,} tokens to train on, {len(data[1]):,} to validate on, {data[2]:,} different ones")
    print(f"{'model':12} {'parameters':>10} {'validation loss':>16} {'seconds':>8}")
    for kind in RATES:
        runs = [trained(kind, data, options.steps, seed) for seed in options.seeds]
        losses = [run[1] for run in runs]
        spread = f" ± {stdev(losses):.3f}" if len(losses) > 1 else ""
        print(f"{kind:12} {runs[0][0]:>10,} {f'{mean(losses):.3f}{spread}':>16} {mean(r[2] for r in runs):>8.0f}")


if __name__ == "__main__":
    main()
