"""What attention cannot take: sizes at construction, sequences when it is called."""

from torch import Tensor

from tenfold.core.errors import OptionError, ShapeError, UnsupportedError


def check_sizes(embed_dim: int, kdim: int, vdim: int, num_heads: int, dropout: float) -> None:
    """Raise OptionError for sizes that attention cannot have."""
    for name, size in (("embed_dim", embed_dim), ("kdim", kdim), ("vdim", vdim), ("num_heads", num_heads)):
        if size < 1:
            raise OptionError(f"{name} came as {size}.", "Give 1 or more.")
    if embed_dim % num_heads:
        raise OptionError(
            f"embed_dim={embed_dim} does not split into {num_heads} heads.", "Give a number that divides it."
        )
    if not 0 <= dropout <= 1:
        raise OptionError(f"dropout came as {dropout}.", "Give a probability.")


def lengths_of(query: Tensor, key: Tensor, batch_first: bool) -> tuple[int, int, int]:
    """The number of sequences, of queries in each, and of keys in each."""
    if query.ndim == 2:
        return 1, query.shape[0], key.shape[0]
    batch, length = (0, 1) if batch_first else (1, 0)
    return query.shape[batch], query.shape[length], key.shape[length]


def check_sequences(
    sequences: tuple[Tensor, Tensor, Tensor], features: tuple[int, int, int], batch_first: bool
) -> None:
    """Raise ShapeError or UnsupportedError unless query, key and value are sequences that fit together."""
    query, key, value = sequences
    if any(x.is_nested for x in sequences):
        raise UnsupportedError(
            "a nested tensor came.", "Give a padded one, with key_padding_mask for what is padding."
        )
    batch = 0 if batch_first else 1
    if (
        query.ndim not in (2, 3)
        or not query.ndim == key.ndim == value.ndim
        or (query.ndim == 3 and query.shape[batch] != key.shape[batch])
        or key.shape[:-1] != value.shape[:-1]
        or tuple(x.shape[-1] for x in sequences) != features
    ):
        axes = "(batch, length, features)" if batch_first else "(length, batch, features)"
        raise ShapeError(
            f"query, key and value came as {', '.join(str(tuple(x.shape)) for x in sequences)}.",
            f"Give {axes} or (length, features), with {features} features in turn, keys as many as values.",
        )
