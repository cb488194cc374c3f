"""What calibration saw at all sites of a model, and of which weights that is true; kept as safetensors."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.compress.calibration.site_statistics import SiteStatistics
from tenfold.compress.calibration.storage import distinct, read, write
from tenfold.core.errors import CheckpointError, UnknownNameError


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
