"""From a model to a smaller one: sites, presets, plans, carrying them out, and recovery."""

from tenfold.compress.apply import LayerFit, apply_
from tenfold.compress.calibration.calibrate import collect, collected
from tenfold.compress.calibration.statistics import SiteStatistics, Statistics
from tenfold.compress.metric import (
    DiagonalInput,
    Fisher,
    InputCovariance,
    KroneckerFisher,
    Metric,
    metrics,
)
from tenfold.compress.pipeline import Compressed, compress
from tenfold.compress.plan import LayerPlan, Plan, Provenance, plan
from tenfold.compress.presets import Preset, presets
from tenfold.compress.recovery.batchnorm import reestimate_batchnorm_
from tenfold.compress.recovery.distill import Distillation
from tenfold.compress.recovery.reconstruct import Rebuilt, reconstruct_
from tenfold.compress.recovery.trace import Epoch, Tuned
from tenfold.compress.recovery.tune import tune
from tenfold.compress.select import Choice, Selection, choose
from tenfold.compress.sites import Site, find_sites

__all__ = [
    "Choice",
    "Compressed",
    "DiagonalInput",
    "Distillation",
    "Epoch",
    "Fisher",
    "InputCovariance",
    "KroneckerFisher",
    "LayerFit",
    "LayerPlan",
    "Metric",
    "Plan",
    "Preset",
    "Provenance",
    "Rebuilt",
    "Selection",
    "Site",
    "SiteStatistics",
    "Statistics",
    "Tuned",
    "apply_",
    "choose",
    "collect",
    "collected",
    "compress",
    "find_sites",
    "metrics",
    "plan",
    "presets",
    "reconstruct_",
    "reestimate_batchnorm_",
    "tune",
]
