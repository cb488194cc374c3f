"""Both models at a site: the inputs that the compressed one has, and the outputs that would make it right."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tenfold.compress.calibration.lockstep import Stop, Walk
from tenfold.compress.calibration.ramps import along_channels
from tenfold.compress.recovery.twins import TwinSite
from tenfold.core.errors import ModelError

LEAST = 1e-3
"""Outputs of which a sum holds less than so much of what it holds of others do not make up for its errors."""


@dataclass(frozen=True)
class Pair:
    """One batch at a site: its inputs, the outputs that are wanted, and the sum that its output went into.

    That is rest + a·output, with slopes a (1 unless a ReLU is behind), and is renewed in place. Behind the
    `knee`, where it comes to a ReLU that makes it 0, outputs all do the same.
    """

    x: Tensor
    y: Tensor
    sum: Tensor | None = None
    rest: Tensor | None = None
    knee: Tensor | None = None

    def renew(self, site: TwinSite) -> None:
        """Put the output of the layer as it is now into the sum."""
        if self.sum is not None and self.rest is not None:
            self.sum.copy_(self.rest + _share(site, site.layer(self.x)))


def reached(site: TwinSite, small: Walk, dense: Walk) -> Pair:
    """Bring both passes before the site, or before what receives its output.

    There the dense sum is wanted: the output makes up for what the rest of the sum has lost, too.
    """
    x, twin = _input(small, site.layer), _input(dense, site.source)
    if site.receivers is None:
        return Pair(x, site.source(twin))
    x = x.clone()  # the passes go on, and may change it in place
    share, output = _share(site, site.layer(x)), None if site.slope is None else site.source(twin)
    total, wanted = (_input(walk, at) for walk, at in zip((small, dense), site.receivers, strict=True))
    rest = total - share
    if site.slope is None or output is None:
        return Pair(x, wanted - rest, total, rest)
    used = site.slope.abs() > LEAST * site.slope.abs().max()
    values = _inverse(site.slope, used), ~used, torch.where(site.slope < 0, torch.inf, -torch.inf)
    inverse, unused, beyond = (along_channels(v, site.source, rest) for v in values)
    y = torch.where(unused, output, (wanted - rest) * inverse)
    return Pair(x, y, total, rest, torch.where(unused, beyond, -rest * inverse))


def _inverse(slope: Tensor, used: Tensor) -> Tensor:
    return torch.where(used, 1 / torch.where(used, slope, 1.0), 0.0)


def _share(site: TwinSite, output: Tensor) -> Tensor:
    """What an output of the layer brings to the sum."""
    if site.slope is None:
        return output
    moved = site.moved()
    if isinstance(moved, Tensor):
        output = output + along_channels(moved, site.source, output)
    return along_channels(site.slope, site.source, output) * output


def _input(walk: Walk, stop: Stop) -> Tensor:
    at = walk.next()
    if at is None or (at[0] is not stop and at[0] != stop):
        raise ModelError(
            "the layers of the model are not called in one order for all batches.",
            "Leave the correction out for models whose path depends on the data.",
        )
    return at[1]
