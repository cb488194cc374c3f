"""What calibration saw at one site: moments of its inputs, outputs and loss gradients."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from torch import Tensor

from tenfold.core.errors import DataError

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

    The input of a table (v, o) is a one-hot vector at every index but those of its padding row. E[x] is how
    often each row is asked for, and E[x xᵀ] is diagonal: its diagonal, the same vector, is held in its place,
    (v,). Outputs are the rows that are looked up, before bags pool them. The weight of a transposed
    convolution meets the channels of one position of the input, so that its patches are its inputs; S[g gᵀ]
    is that of the outputs scaled to as many positions as there are inputs, the mean over the taps of each.
    A patch of a bilinear layer is the products of the entries of both inputs, of which x is the first.
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
    """E[x xᵀ], not centred, (c, c); of a table its diagonal (v,)."""
    input_absolute: Tensor | None = None
    """E|x|, (c,), or (g, c/g), for ASVD (Yuan et al. 2023, arXiv 2312.05821)."""
    patch_mean: Tensor | None = None
    """E[p], (k,)."""
    patch_moment: Tensor | None = None
    """E[p pᵀ], not centred, (k, k); where patches are inputs the same tensor as `input_covariance`."""
    output_mean: Tensor | None = None
    """E[y], (o,), with the bias."""
    output_covariance: Tensor | None = None
    """E[y yᵀ], not centred, with the bias, (o, o)."""
    gradient_covariance: Tensor | None = None
    """S[g gᵀ], (o, o), for all groups together."""
    fisher_rows: Tensor | None = None
    """Squared gradient of a sample's loss by the weight, mean over samples, summed over each row: (o,)."""
    fisher_columns: Tensor | None = None
    """The same summed over each column: (k,), (v,) of a table, (c / g,) of a transposed convolution; for
    FWSVD (Hsu et al. 2022, arXiv 2207.00112)."""
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

        >>> import torch
        >>> SiteStatistics(20, samples=10, input_covariance=torch.eye(64)).needed
        32
        """
        positions = {
            "input_covariance": self.count,
            "patch_moment": self.output_count or self.count,
            "output_covariance": self.output_count,
            "gradient_covariance": self.output_count,
        }
        whole = {name: value for name, value in self.tensors().items() if not is_diagonal(value)}
        found = {name: value.shape[-1] for name, value in whole.items() if name in positions}
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


def is_diagonal(moment: Tensor) -> bool:
    """Whether a moment is a diagonal matrix, of which the diagonal is held."""
    return moment.ndim == 1


def centred(mean: Tensor, moment: Tensor) -> Tensor:
    """E[x xᵀ] − E[x] E[x]ᵀ, subtracted in float64; small entries of either sign may stand for zero.

    >>> import torch
    >>> centred(torch.tensor([1.0, 0.0]), torch.tensor([[3.0, 1.0], [1.0, 1.0]]))
    tensor([[2., 1.],
            [1., 1.]])
    """
    wide = mean.double()
    return (moment.double() - wide[..., :, None] * wide[..., None, :]).to(moment.dtype)
