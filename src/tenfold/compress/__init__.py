"""From a model to a smaller one: sites, presets, plans, and carrying them out."""

from tenfold.compress.apply import LayerFit, apply_
from tenfold.compress.pipeline import Compressed, compress
from tenfold.compress.plan import LayerPlan, Plan, Provenance, plan
from tenfold.compress.presets import Preset, presets
from tenfold.compress.select import Choice, Selection, choose
from tenfold.compress.sites import Site, find_sites
from tenfold.compress.tune import Epoch, Tuned, tune

__all__ = [
    "Choice",
    "Compressed",
    "Epoch",
    "LayerFit",
    "LayerPlan",
    "Plan",
    "Preset",
    "Provenance",
    "Selection",
    "Site",
    "Tuned",
    "apply_",
    "choose",
    "compress",
    "find_sites",
    "plan",
    "presets",
    "tune",
]
