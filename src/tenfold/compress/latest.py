"""What was calculated from the statistics of one site, kept until another site's turn."""

import weakref
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch

from tenfold.compress.calibration.site_statistics import SiteStatistics

T = TypeVar("T")


class Latest:
    """Values made from the statistics of a site, which are asked for again and again while it is looked at.

    One site at a time: the roots of a whole network may take more memory than the network. They go when its
    statistics go. What is made in inference mode is not given outside of it, where gradients may pass.

    >>> latest, seen = Latest(), SiteStatistics(1)
    >>> latest(seen, "sum", lambda: 3), latest(seen, "sum", lambda: 4), latest(SiteStatistics(1), "sum", int)
    (3, 3, 0)
    """

    def __init__(self) -> None:
        self._held: tuple[weakref.ref[SiteStatistics] | None, dict[Hashable, Any]] = None, {}

    def __call__(self, seen: SiteStatistics, key: Hashable, make: Callable[[], T]) -> T:
        """The value of that key, made if it is not there."""
        site, values = self._held
        if site is None or site() is not seen:
            values = {}
            self._held = weakref.ref(seen, lambda _: values.clear()), values
        whole = key, torch.is_inference_mode_enabled()
        if whole not in values:
            values[whole] = make()
        found: T = values[whole]
        return found
