"""Compress a trained network in a training script: plan, apply, tune with your own loop, save, load.

Run it with `python examples/compress_a_network.py`; it takes about ten seconds and needs scikit-learn.
"""

import tempfile

import torch

import tenfold
from tenfold.data import digits
from tenfold.measure import accuracy
from tenfold.zoo import digits_cnn


def main() -> None:
    torch.manual_seed(0)
    train, test = digits()
    train, valid = train.normalized().split(0.85)
    test = test.normalized(train.mean, train.std)
    example = next(iter(test.batches(32)))[0]

    dense = digits_cnn()
    tenfold.tune(dense, train.batches(64, shuffle=True), valid.batches(256), epochs=3)

    # A few batches say what each weight is worth to the loss. Leave data, metric and rule out to look at the
    # weights alone.
    small, plan, fits = tenfold.compress(
        dense,
        tenfold.Budget(params=0.1),
        example=example,
        preset="tucker2",
        select={"Linear": None},
        data=train.batches(64),
        metric=tenfold.KroneckerFisher(),
        rule=tenfold.Lagrangian(),
    )
    # The plan is data: it can be printed, edited, saved as JSON, and applied again.
    for module, layers in plan.layers.items():
        print(f"{module:12} {layers['weight'].format:8} {dict(layers['weight'].ranks)}")
    print(f"largest relative error of a weight: {max(fit.error for fit in fits):.2f}")
    before = accuracy(small, test.batches(256))
    tenfold.tune(small, train.batches(64, shuffle=True), valid.batches(256), epochs=2, lr=1e-3)

    with tempfile.TemporaryDirectory() as folder:
        tenfold.save(small, f"{folder}/small", plan)
        small = tenfold.load(digits_cnn, f"{folder}/small")

    comparison = tenfold.compare(dense, small, example, test.batches(256))
    print(f"parameters kept {comparison.params_kept:.1%}, speed-up {comparison.speedup:.2f}x")
    print(
        f"accuracy {comparison.dense.accuracy:.3f} -> {before:.3f} before tuning, "
        f"{comparison.small.accuracy:.3f} after"
    )


if __name__ == "__main__":
    main()
