"""Completion in every format."""

from typing import Any

import numpy as np
import pytest

from tenfold.core.errors import OptionError, RankError, UnknownNameError, WeightError
from tenfold.core.incomplete import Incomplete
from tenfold.decompose import STHOSVD, Completion, TuckerIncomplete
from tenfold.formats import Tucker, formats

CASES = [
    ("cp", (8, 9, 10), 2, 0.3),
    ("tucker", (8, 9, 10), 2, 0.4),
    ("tt", (6, 7, 5, 6), 2, 0.4),
    ("tr", (7, 8, 9), 2, 0.5),
    ("ht", (6, 5, 6, 5), 2, 0.5),
    ("lowrank", (20, 15), 2, 0.5),
]


def known(tensor: Any, share: float, seed: int = 0) -> Incomplete:
    """A share of the entries."""
    return Incomplete.from_mask(tensor, np.random.default_rng(seed).random(tensor.shape) < share)


@pytest.mark.parametrize("kind, shape, rank, share", CASES)
def test_a_part_of_the_entries_gives_all_in_every_format(
    kind: str, shape: Any, rank: int, share: float
) -> None:
    x = formats[kind].random(shape, rank, like=np.zeros(()), generator=0).dense()
    fit = Completion(kind, restarts=10)(known(x, share), rank, generator=0)
    assert isinstance(fit.value, formats[kind]) and fit.error < 1e-12
    assert np.linalg.norm(fit.value.dense() - x) < 1e-8 * np.linalg.norm(x)


def test_a_mode_may_stay_whole() -> None:
    x = Tucker.random((9, 8, 3), (2, 2, None), like=np.zeros(()), generator=0).dense()
    fit = TuckerIncomplete()(known(x, 0.5), (2, 2, None), generator=0)
    assert fit.value.matrices[2] is None and np.allclose(fit.value.dense(), x)


def test_tucker_of_a_complete_tensor_is_no_worse_than_its_hosvd() -> None:
    x = np.random.default_rng(0).standard_normal((5, 6, 4))
    assert TuckerIncomplete().fit(x, 2, generator=0).error < STHOSVD()(x, 2).error


def test_large_blocks_leave_a_diagonal_preconditioner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenfold.decompose.entries.gram_matrices.BLOCKS", 10)
    x = formats["cp"].random((8, 9, 10), 1, like=np.zeros(()), generator=0).dense()
    fit = Completion("cp", cg_steps=60)(known(x, 0.3), 1, generator=0)
    assert np.allclose(fit.value.dense(), x)


def test_formats_are_known_by_name_and_rank() -> None:
    with pytest.raises(UnknownNameError, match="unknown format 'tuker'"):
        Completion("tuker")
    with pytest.raises(OptionError, match="came without its graph"):
        Completion("general")
    with pytest.raises(RankError):
        Completion("tt")(known(np.ones((3, 4)), 0.9))


def test_a_general_network_is_completed_by_its_graph() -> None:
    x = formats["lowrank"].random((9, 8), 1, like=np.zeros(()), generator=0).dense()
    method = Completion("general", static={"joined": (("m0", "R"), ("R", "m1"))})
    assert np.allclose(method(known(x, 0.6), {"R": 1}, generator=0).value.dense(), x)


def test_a_slice_without_known_entries_is_refused() -> None:
    mask = np.ones((4, 5), dtype=bool)
    mask[1] = False
    with pytest.raises(WeightError, match="index 1 of mode 0"):
        Completion("tt")(Incomplete.from_mask(np.ones((4, 5)), mask), 1)
