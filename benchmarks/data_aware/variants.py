"""From plain truncation to all that data can tell, one step at a time."""

from collections.abc import Mapping
from dataclasses import dataclass

from tenfold import Budget, Lagrangian, Uniform
from tenfold.compress import KroneckerFisher, Metric
from tenfold.ranks import RankRule

PRESETS = ("channel_svd", "spatial_svd", "tucker2", "cp3", "auto")
KEEPS = (0.5, 0.3, 0.2)
UNIFORM = Uniform()


@dataclass(frozen=True)
class Variant:
    """What is used of the data: a metric, a rule that compares sites, a repair behind."""

    metric: Metric | None = None
    rule: RankRule = UNIFORM
    floor: float | None = None
    norms: bool = True
    rounds: int | None = None
    """Those of `correct_`, which None leaves out. With more than 0, dense layers are corrected, too."""
    rebuilt: int = 0
    """Passes over the images in which `reconstruct_` trains a stage to give what the dense one gives."""

    def budget(self, keep: float) -> Budget:
        """The fraction of the sites' parameters to keep."""
        return Budget(params=keep, floor=self.floor)


FISHER = KroneckerFisher()
REFINED = KroneckerFisher(refine=50)

VARIANTS: Mapping[str, Variant] = {
    "plain": Variant(norms=False),
    "batch norm": Variant(),
    "two-sided metric": Variant(FISHER),
    "refined": Variant(REFINED),
    "global, no floor": Variant(REFINED, Lagrangian(), floor=0.0),
    "global": Variant(REFINED, Lagrangian()),
    "corrected, linear": Variant(REFINED, Lagrangian(), rounds=0),
    "corrected": Variant(REFINED, Lagrangian(), floor=0.9, rounds=3),
    "rebuilt": Variant(REFINED, Lagrangian(), floor=0.9, rounds=3, rebuilt=20),
}
"""Each adds to the one before it, but "global", whose floor is the default, to "refined". "corrected" has a
floor of its own."""
