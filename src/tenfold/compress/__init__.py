"""From a model to a smaller one: sites, presets, plans, carrying them out, and recovery."""

from tenfold.compress.absorb import absorb_gates_
from tenfold.compress.apply import LayerFit, apply_
from tenfold.compress.calibration.calibrate import collect, collected
from tenfold.compress.calibration.site_statistics import SiteStatistics
from tenfold.compress.calibration.statistics import Statistics
from tenfold.compress.densify import to_dense_
from tenfold.compress.drop import Within, compress_within
from tenfold.compress.foldings import foldings
from tenfold.compress.gates import gate_penalty, gate_widths, insert_gates_, proximal, shrink_
from tenfold.compress.latency import LatencyTable
from tenfold.compress.metric import (
    DiagonalInput,
    Fisher,
    InputCovariance,
    KroneckerFisher,
    Metric,
    metrics,
)
from tenfold.compress.pipeline import Compressed, compress
from tenfold.compress.pivots import pivot_, unpivot_
from tenfold.compress.plan import LayerPlan, Plan, Provenance, plan
from tenfold.compress.presets import AUTO, Preset, presets, sliced
from tenfold.compress.recovery.batchnorm import reestimate_batchnorm_
from tenfold.compress.recovery.correct import Corrected, correct_
from tenfold.compress.recovery.distill import Distillation
from tenfold.compress.recovery.reconstruct import Rebuilt, reconstruct_
from tenfold.compress.recovery.trace import Epoch, Tuned
from tenfold.compress.recovery.tune import tune
from tenfold.compress.scratch import apply_fresh_
from tenfold.compress.select import Choice, Selection, Wanted, choose
from tenfold.compress.sites import Site, find_sites
from tenfold.compress.stages import Stage, Staged, StageResult, compress_in_stages, geometric
from tenfold.compress.training.admm import admm_
from tenfold.compress.training.alternate import Induced, Round
from tenfold.compress.training.learning_compression import learning_compression_
from tenfold.compress.training.price import priced
from tenfold.compress.training.pull import Pull

__all__ = [
    "AUTO",
    "Choice",
    "Compressed",
    "Corrected",
    "DiagonalInput",
    "Distillation",
    "Epoch",
    "Fisher",
    "Induced",
    "InputCovariance",
    "KroneckerFisher",
    "LatencyTable",
    "LayerFit",
    "LayerPlan",
    "Metric",
    "Plan",
    "Preset",
    "Provenance",
    "Pull",
    "Rebuilt",
    "Round",
    "Selection",
    "Site",
    "SiteStatistics",
    "Stage",
    "StageResult",
    "Staged",
    "Statistics",
    "Tuned",
    "Wanted",
    "Within",
    "absorb_gates_",
    "admm_",
    "apply_",
    "apply_fresh_",
    "choose",
    "collect",
    "collected",
    "compress",
    "compress_in_stages",
    "compress_within",
    "correct_",
    "find_sites",
    "foldings",
    "gate_penalty",
    "gate_widths",
    "geometric",
    "insert_gates_",
    "learning_compression_",
    "metrics",
    "pivot_",
    "plan",
    "presets",
    "priced",
    "proximal",
    "reconstruct_",
    "reestimate_batchnorm_",
    "shrink_",
    "sliced",
    "to_dense_",
    "tune",
    "unpivot_",
]
