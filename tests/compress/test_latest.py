"""What is made of a site's statistics is made once while the site is looked at, and goes with them."""

import gc
import weakref

import torch

from tenfold.compress import KroneckerFisher
from tenfold.compress.calibration.site_statistics import SiteStatistics
from tenfold.compress.latest import Latest
from tenfold.core.layout import Layout
from tenfold.decompose import Root

POINTWISE = Layout.parse("o i h w -> (o h w) i").bind((4, 3, 1, 1), "conv.weight")


def seen(width: int = 3) -> SiteStatistics:
    a = torch.randn(width, 9, generator=torch.Generator().manual_seed(0))
    return SiteStatistics(9, patch_moment=a @ a.T, gradient_covariance=torch.eye(4))


def test_roots_of_a_site_are_made_once_for_each_metric() -> None:
    site, metric = seen(), KroneckerFisher()
    first, again = metric.roots(site, POINTWISE), KroneckerFisher().roots(site, POINTWISE)
    assert [a is b for a, b in zip(first, again, strict=True)] == [True, True]
    other = KroneckerFisher(damping=0.5).roots(site, POINTWISE)[1]
    assert isinstance(first[1], Root) and isinstance(other, Root)
    assert not torch.equal(first[1].root, other.root)


def test_roots_of_another_site_take_their_place_and_go_with_it() -> None:
    class Value:
        pass

    latest, first, second = Latest(), seen(), seen()
    kept = weakref.ref(latest(first, "a", Value))
    latest(second, "a", Value)
    gc.collect()
    assert kept() is None
    kept = weakref.ref(latest(second, "a", Value))
    assert kept() is not None
    del second
    gc.collect()
    assert kept() is None


def test_a_tap_of_a_pointwise_convolution_keeps_no_mode_from_being_whitened() -> None:
    taps = Layout.parse("o i h w -> (o h w) i").bind((4, 3, 3, 1), "conv.weight")
    assert KroneckerFisher().is_whitened(seen(), POINTWISE)
    assert not KroneckerFisher().is_whitened(seen(9), taps)
