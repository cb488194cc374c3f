"""What calibration saw at each site: moments of inputs, outputs and loss gradients; kept as safetensors."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.compress.calibration.storage import distinct, read, write
from tenfold.core.errors import CheckpointError, DataError, UnknownNameError

BROUGHT_BY = {
    "input_mean": "input_covariance",
    "patch_mean": "patch_moment",
    "output_mean": "output_covariance",
    "fisher_columns": "fisher_rows",
}
"""Field -> the statistic that it comes with."""


@dataclass(frozen=True, eq=False)
class SiteStatistics:
    """What one layer saw; a statistic that was not collected is None, and `skipped` says why, if wanted.

    c channels go in, o come out, k = (c / groups) · taps are the entries of an output's weight in the order
    of the weight's axes (i, *taps). With g > 1 groups, matrices over inputs are stacks, one for each group:
    (g, c/g, c/g) and (g, k, k); `patch_mean` is (g, k). All are in float32 at least.

    x is an input and y an output of the layer at one position, p a patch of inputs, padding included, and
    E their mean over all positions of all samples. g is the gradient of a sample's loss by y at a position,
    and S[g gᵀ] the mean over samples of the sum over the positions of each. When the weight changes by ΔW,
    the mean loss of a sample rises by about ½ tr(S[g gᵀ] ΔW E[p pᵀ] ΔWᵀ): the product is that of Grosse &
    Martens 2016 (arXiv 1602.01407), who sum over the positions in the factor of the inputs and take the mean
    over them in that of the gradients. Several calls of a layer in one forward pass are more positions.
    """

    count: int
    """Input positions: rows of a linear layer's input, pixels of a convolution's; over all calls."""
    output_count: int = 0
    """Output positions, which are also the patches."""
    samples: int = 0
    """Samples that the model was given, whether they came to this layer or not."""
    input_mean: Tensor | None = None
    """E[x], (c,), or (g, c/g)."""
    input_covariance: Tensor | None = None
    """E[x xᵀ], not centred, (c, c)."""
    input_absolute: Tensor | None = None
    """E|x|, (c,), or (g, c/g), for ASVD (Yuan et al. 2023, arXiv 2312.05821)."""
    patch_mean: Tensor | None = None
    """E[p], (k,)."""
    patch_moment: Tensor | None = None
    """E[p pᵀ], not centred, (k, k); of a linear layer the same tensor as `input_covariance`."""
    output_mean: Tensor | None = None
    """E[y], (o,), with the bias."""
    output_covariance: Tensor | None = None
    """E[y yᵀ], not centred, with the bias, (o, o)."""
    gradient_covariance: Tensor | None = None
    """S[g gᵀ], (o, o), for all groups together."""
    fisher_rows: Tensor | None = None
    """Squared gradient of a sample's loss by the weight, mean over samples, summed over each row: (o,)."""
    fisher_columns: Tensor | None = None
    """The same summed over each column: (k,); for FWSVD (Hsu et al. 2022, arXiv 2207.00112)."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Statistic -> why it was not collected though it was wanted."""
    name: str = ""
    """Of the site, for messages."""

    def the(self, name: str) -> Tensor:
        """The statistic of that name; raises DataError, with the reason, if it was not collected."""
        value = getattr(self, name)
        if value is None:
            site, wanted = f"at '{self.name}' " if self.name else "", BROUGHT_BY.get(name, name)
            if wanted not in self.skipped:
                raise DataError(
                    f"{site}there is no {name}: it was not wanted.",
                    f"Collect it with want={{'{wanted}', ...}}.",
                )
            raise DataError(
                f"{site}there is no {name}: {self.skipped[wanted]}.",
                f"Leave the site dense, select={{'{self.name or '...'}': None}}, or collect anew.",
            )
        return value

    @property
    def needed(self) -> int:
        """Samples that it takes for every moment to have full rank, at as many positions a sample as there
        were; 0 if none came.

        >>> SiteStatistics(20, samples=10, input_covariance=torch.eye(64)).needed
        32
        """
        positions = {
            "input_covariance": self.count,
            "patch_moment": self.output_count or self.count,
            "output_covariance": self.output_count,
            "gradient_covariance": self.output_count,
        }
        found = {name: value.shape[-1] for name, value in self.tensors().items() if name in positions}
        each = {name: -(-rows * self.samples // (positions[name] or 1)) for name, rows in found.items()}
        return max(each.values(), default=0)

    @property
    def input_centred(self) -> Tensor:
        """Covariance of the inputs about their mean."""
        return centred(self.the("input_mean"), self.the("input_covariance"))

    @property
    def patch_centred(self) -> Tensor:
        """Covariance of the patches about their mean."""
        return centred(self.the("patch_mean"), self.the("patch_moment"))

    @property
    def output_centred(self) -> Tensor:
        """Covariance of the outputs about their mean; the bias plays no part."""
        return centred(self.the("output_mean"), self.the("output_covariance"))

    def tensors(self) -> dict[str, Tensor]:
        """The statistics that were collected."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def centred(mean: Tensor, moment: Tensor) -> Tensor:
    """E[x xᵀ] − E[x] E[x]ᵀ, subtracted in float64; small entries of either sign may stand for zero.

    >>> centred(torch.tensor([1.0, 0.0]), torch.tensor([[3.0, 1.0], [1.0, 1.0]]))
    tensor([[2., 1.],
            [1., 1.]])
    """
    wide = mean.double()
    return (moment.double() - wide[..., :, None] * wide[..., None, :]).to(moment.dtype)


@dataclass(frozen=True, eq=False)
class Statistics(Mapping[str, SiteStatistics]):
    """Site name -> what was seen there; with what was wanted, and of which weights it is true."""

    sites: Mapping[str, SiteStatistics]
    want: frozenset[str]
    samples: int
    weights: str
    """Fingerprint of the model's weights, see `fingerprint`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The other options of `collect` that change the numbers, as JSON can hold them."""

    def __getitem__(self, name: str) -> SiteStatistics:
        if name not in self.sites:
            raise UnknownNameError(f"there are no statistics of '{name}'", f"Sites: {', '.join(self.sites)}")
        return self.sites[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.sites)

    def __len__(self) -> int:
        return len(self.sites)

    @property
    def scarce(self) -> dict[str, int]:
        """Site -> samples that its moments need, of those that have fewer: their moments are singular.

        That is no error: what the data never showed is then weighed by the damping of the metric alone.
        """
        return {name: seen.needed for name, seen in self.sites.items() if self.samples < seen.needed}

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, all of it or nothing.

        >>> import tempfile
        >>> seen = Statistics({"fc.weight": SiteStatistics(3, input_mean=torch.ones(2))}, frozenset(), 3, "")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     seen.save(f"{folder}/seen.safetensors")
        ...     Statistics.load(f"{folder}/seen.safetensors")["fc.weight"].input_mean
        tensor([1., 1.])
        """
        arrays, places = distinct({name: seen.tensors() for name, seen in self.sites.items()})
        sites = {name: _header(seen) | {"tensors": places[name]} for name, seen in self.sites.items()}
        header = {
            "want": sorted(self.want),
            "samples": self.samples,
            "weights": self.weights,
            "options": dict(self.options),
            "sites": sites,
        }
        write(path, header, arrays)

    @staticmethod
    def load(path: str | Path, weights: str | None = None) -> "Statistics":
        """Read what `save` wrote, onto the CPU.

        Raises:
            CheckpointError: if the file holds no statistics, or they are not those of `weights`, where given.
        """
        header, arrays = read(Path(path))
        try:
            found = _parsed(json.loads(header), arrays)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"'{path}' is damaged: {error!r}.", "Delete it and collect anew."
            ) from error
        if weights is not None and found.weights != weights:
            raise CheckpointError(
                f"the statistics in '{path}' are those of other weights.", "Collect them anew for this model."
            )
        return found

    def to(self, device: torch.device | str) -> "Statistics":
        """The same with tensors on `device`."""
        moved: dict[int, Tensor] = {}
        sites = {name: _on(seen, device, moved) for name, seen in self.sites.items()}
        return Statistics(sites, self.want, self.samples, self.weights, self.options)


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of all parameters and buffers: names, types, shapes and bytes.

    Not of the sites alone: what a layer sees depends on the weights before it, and on their biases and batch
    norms too.

    >>> a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    >>> _ = b.load_state_dict(a.state_dict())
    >>> fingerprint(a) == fingerprint(b), fingerprint(a) == fingerprint(b.double())
    (True, False)
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _header(seen: SiteStatistics) -> dict[str, Any]:
    return {
        "count": seen.count,
        "output_count": seen.output_count,
        "samples": seen.samples,
        "skipped": dict(seen.skipped),
        "name": seen.name,
    }


def _parsed(header: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> Statistics:
    sites = {name: _site(entry, arrays) for name, entry in header["sites"].items()}
    return Statistics(
        sites, frozenset(header["want"]), header["samples"], header["weights"], header["options"]
    )


def _site(entry: dict[str, Any], arrays: Mapping[str, Tensor]) -> SiteStatistics:
    values: dict[str, Any] = {name: arrays[key] for name, key in entry["tensors"].items()}
    return SiteStatistics(**{k: v for k, v in entry.items() if k != "tensors"}, **values)


def _on(seen: SiteStatistics, device: torch.device | str, moved: dict[int, Tensor]) -> SiteStatistics:
    """What is one tensor under two names stays one."""
    values: dict[str, Any] = {}
    for name, tensor in seen.tensors().items():
        if id(tensor) not in moved:
            moved[id(tensor)] = tensor.to(device)
        values[name] = moved[id(tensor)]
    return replace(seen, **values)
