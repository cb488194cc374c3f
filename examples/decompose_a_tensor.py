"""The toolbox by itself: decompose a NumPy array, look at errors and ranks, calculate with the factors."""

import numpy as np

from tenfold.decompose import CPD, STHOSVD, TTSVD


def main() -> None:
    grid = np.linspace(0.0, 1.0, 30)
    x, y, z = np.meshgrid(grid, grid, grid, indexing="ij")
    tensor = 1 / (1 + x + y + z)

    for method, ranks in ((STHOSVD(tol=1e-6), None), (TTSVD(tol=1e-6), None), (CPD(), 4)):
        fit = method(tensor, ranks, generator=0)
        kept = fit.value.numel / tensor.size
        print(f"{type(method).__name__:8} ranks {fit.value.ranks}, {kept:.2%} kept, error {fit.error:.1e}")

    tucker = STHOSVD(tol=1e-6)(tensor).value
    train = TTSVD(tol=1e-6)(tensor).value
    # Inner products, slices and mode products never form the dense tensor.
    print("inner product of the two:", float(tucker.inner(train)), "against", float((tensor**2).sum()))
    print("one slice:", tucker[:, 3, 5:9].shape)


if __name__ == "__main__":
    main()
