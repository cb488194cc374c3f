"""Regression on outputs of which a ReLU shows one side."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tenfold.compress.calibration.cross import CrossMoments, CrossSums
from tenfold.compress.recovery.pairs import Pair
from tenfold.compress.recovery.twins import TwinSite


def one_sided(output: Tensor, wanted: Tensor, knee: Tensor, slope: Tensor) -> Tensor:
    """The outputs z to regress on next, so that max(0, a (y - k)) comes nearer to what is wanted.

    With a > 0: where the wanted output is above the knee k, it is wanted as it is; where it is below, all
    outputs below are as good, and one above should go down to the knee. The loss of an output y is then
    (y - z)², convex in y and at least what the ReLU shows of the error. To minimise (y - z)² with z fixed,
    and to take z anew, never raises it (majorisation).

    Source: auxiliary outputs as in Zhang et al. 2015, arXiv:1505.06798, section 3.2; here for a convex loss,
    which needs no penalty that is relaxed.

    >>> y, wanted = torch.tensor([-1.0, 2.0, -1.0, 2.0]), torch.tensor([-3.0, -3.0, 3.0, 3.0])
    >>> one_sided(y, wanted, knee=torch.tensor(0.0), slope=torch.tensor(1.0))
    tensor([-1.,  0.,  3.,  3.])
    """
    side = slope.sign()
    hidden = torch.where(side > 0, output.minimum(knee), output.maximum(knee))
    return torch.where((wanted - knee) * side > 0, wanted, hidden)


def shown(
    site: TwinSite, pairs: Sequence[Pair], known: CrossMoments, shift: Tensor, seed: int
) -> tuple[CrossMoments, float]:
    """The moments with `one_sided` outputs in the place of the wanted ones, from the factors as they are with
    `shift` on top of the dense bias; and the mean square of the error that the ReLU behind shows.

    `known` are the moments of the wanted outputs, of the same `seed`.
    """
    assert site.slope is not None
    sums, error = CrossSums(site.source, seed=seed), 0.0
    weight = known.matrix(site.weight())
    for pair in pairs:
        assert pair.knee is not None
        if not pair.x.numel():
            continue
        p, wanted, knee = sums.columns(pair.x, pair.y, pair.knee)
        w, b, a = (v.reshape(*wanted.shape[:-1], -1).to(p) for v in (weight, shift, site.slope))
        output = w @ p + b
        z = one_sided(output, wanted, knee, a)
        error += float((z - output).double().square().sum())
        sums.add_columns(p, z, known)
    return sums.moments(known), error / sums.count
