"""Train small 3-D networks of factorized layers only, each beside its dense twin, on films of real digits.

Every film takes one of scikit-learn's handwritten digits and moves, turns or zooms it; what is wanted is the
digit and the motion. A motion and its opposite show the same frames in the opposite order, and start
anywhere, so that neither one frame nor all of them without their order tell which it is: the kernels have to
reach through time. Images of the test films are in no film to train on.

The convolutions are held as CP, as Tucker or as tensor trains, the head is a tensor regression of the same
format; all in all a quarter of the parameters. All networks see the same films in the same order, for the
same number of steps. Run it with `python examples/train_a_3d_network.py`; it takes some minutes on two
cores and needs scikit-learn. `--quick` is a look of a few seconds, `--seeds 0 1 2` says how much of a
difference is chance.
"""

import argparse
import math
import time
from collections.abc import Sequence
from statistics import mean, stdev

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold.data import ImageData, digits
from tenfold.nn import TRL, FactorizedConv

FRAMES, SIZE, BATCH = 8, 12, 32
MOTIONS = ("right", "left", "clockwise", "counterclockwise", "nearer", "farther")
CHANNELS, STRIDES = (1, 16, 32, 64, 96), (1, 2, 2, 1)
FRACTIONS = (1.0, 0.5, 0.25, 0.24, 0.22)
"""Of the elements of each weight, first to last: the first are small, and the others see through them."""
LAYOUTS = {
    "cp": "o i d h w -> o i (d h w)",
    "tucker": "o i d h w -> o i (d h w)",
    "tt": "o i d h w -> i d h w o",
}
"""How a kernel becomes the tensor that is factored; d is time."""
HEAD = "i0 (i1 i2 i3) (o0 o1)"
"""The modes of the head: channels; time and place, of which few are left; digits and motions."""
RATES = {"dense": 4e-3, "cp": 1e-2, "tucker": 1e-2, "tt": 6e-3}


def films(images: Tensor, motions: Tensor, random: torch.Generator) -> Tensor:
    """(n, 1, 8, 8) and numbers of motions (n,) -> (n, 1, frames, size, size), each from a random place.

    Position, angle and scale are the same as far before the middle of the film as, with the other sign,
    after it; how far they go and what they are in the middle is random.
    """
    n = len(images)
    kind, sign = motions // 2, 1.0 - 2.0 * (motions % 2)
    way = torch.linspace(-1, 1, FRAMES) * (sign * (0.6 + 0.4 * torch.rand(n, generator=random))).unsqueeze(1)
    middle = 2 * torch.rand(4, n, 1, generator=random) - 1
    x = 0.15 * middle[0] + 0.35 * way * (kind == 0).unsqueeze(1)
    y = 0.15 * middle[1].expand_as(x)
    angle = 0.2 * middle[2] + 0.6 * way * (kind == 1).unsqueeze(1)
    zoom = torch.exp(0.1 * middle[3] + 0.3 * way * (kind == 2).unsqueeze(1)) * 8 / SIZE
    return moved(images, x, y, angle, zoom)


def moved(images: Tensor, x: Tensor, y: Tensor, angle: Tensor, zoom: Tensor) -> Tensor:
    """Frames of the images, shifted, turned and zoomed as the numbers (n, frames) say."""
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    turn = torch.stack([cos, sin, -sin, cos], -1).unflatten(-1, (2, 2))
    shift = -(turn @ torch.stack([x, y], -1).unsqueeze(-1))
    grid = F.affine_grid(torch.cat([turn, shift], -1).flatten(0, 1), [x.numel(), 1, SIZE, SIZE], False)
    frames = F.grid_sample(images.repeat_interleave(FRAMES, 0), grid, align_corners=False)
    return frames.unflatten(0, x.shape).transpose(1, 2)


def network(kind: str) -> nn.Sequential:
    """Films -> scores (n, digits, motions). Its dense twin has the same layers with dense weights."""
    layers: list[nn.Module] = []
    lengths = [FRAMES, SIZE, SIZE]
    for inputs, outputs, stride, rank in zip(CHANNELS, CHANNELS[1:], STRIDES, FRACTIONS, strict=False):
        conv = convolution(kind, inputs, outputs, stride, rank, lengths)
        layers += [conv, nn.BatchNorm3d(outputs), nn.ReLU()]
        lengths = [-(-n // stride) for n in lengths]
    head = {} if kind == "dense" else {"rank": FRACTIONS[-1], "format": kind, "modes": HEAD}
    return nn.Sequential(*layers, TRL((CHANNELS[-1], *lengths), (10, len(MOTIONS)), **head))


def convolution(
    kind: str, inputs: int, outputs: int, stride: int, rank: float, lengths: list[int]
) -> nn.Module:
    if kind == "dense":
        return nn.Conv3d(inputs, outputs, 3, stride, padding=1, bias=False)
    return FactorizedConv(
        inputs,
        outputs,
        (3, 3, 3),
        rank=rank,
        format=kind,
        layout=LAYOUTS[kind],
        stride=stride,
        padding=1,
        bias=False,
        example=(BATCH, inputs, *lengths),
    )


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int, rate: float, seed: int) -> None:
    """AdamW with a warm-up and a cosine; in every epoch each image is in one new film."""
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.05)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: pace(step, steps))
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=random)
        for part in order[: steps // epochs * BATCH].split(BATCH):
            motions = torch.randint(len(MOTIONS), (BATCH,), generator=random)
            x = films(images[part], motions, random)
            optimizer.zero_grad()
            F.cross_entropy(model(x).flatten(1), labels[part] * len(MOTIONS) + motions).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()


def pace(step: int, steps: int) -> float:
    """The learning rate at a step as a part of the largest."""
    return min(1.0, (step + 1) / (0.1 * steps)) * (0.5 + 0.5 * math.cos(math.pi * step / steps))


@torch.no_grad()
def tested(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Loss and accuracy over a film of every image with every motion, always the same ones."""
    model.eval()
    motions = torch.arange(len(MOTIONS)).repeat(len(images))
    x = films(images.repeat_interleave(len(MOTIONS), 0), motions, torch.Generator().manual_seed(0))
    wanted = labels.repeat_interleave(len(MOTIONS)) * len(MOTIONS) + motions
    scores = torch.cat([model(part).flatten(1) for part in x.split(256)])
    return float(F.cross_entropy(scores, wanted)), float((scores.argmax(1) == wanted).float().mean())


def trained(kind: str, data: tuple[ImageData, ImageData], epochs: int, seed: int) -> tuple[float, ...]:
    """Parameters, test loss, test accuracy, seconds an epoch."""
    (images, labels), test = ((part.images / 255, part.labels) for part in data)
    torch.manual_seed(seed)
    model = network(kind)
    start = time.perf_counter()
    train(model, images, labels, epochs, RATES[kind], seed)
    seconds = (time.perf_counter() - start) / epochs
    return sum(p.numel() for p in model.parameters()), *tested(model, *test), seconds


def spread(numbers: Sequence[float], digits: int) -> str:
    """Mean and, of several, the standard deviation."""
    more = f" ± {stdev(numbers):.{digits}f}" if len(numbers) > 1 else ""
    return f"{mean(numbers):.{digits}f}{more}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--quick", action="store_true", help="one epoch over a tenth of the images")
    options = parser.parse_args()
    epochs, data = options.epochs, digits()
    if options.quick:
        epochs, data = 1, tuple(part.split(0.1)[0] for part in data)
    print(f"{len(data[0])} digits to train on, {len(data[1])} to test on, {len(MOTIONS)} motions")
    print(f"{'model':8} {'parameters':>10} {'test loss':>16} {'test accuracy':>16} {'seconds/epoch':>14}")
    for kind in RATES:
        sizes, losses, right, seconds = zip(
            *(trained(kind, data, epochs, seed) for seed in options.seeds), strict=True
        )
        shown = f"{spread(losses, 3):>16} {spread(right, 3):>16} {mean(seconds):>14.1f}"
        print(f"{kind:8} {sizes[0]:>10,} {shown}", flush=True)


if __name__ == "__main__":
    main()
