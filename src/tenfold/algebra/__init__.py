"""Operations on dense and sparse tensors: unfoldings, products, contractions, MTTKRP."""

from tenfold.algebra.blocks import join_blocks, split_blocks
from tenfold.algebra.contraction import contract, contract_axes
from tenfold.algebra.cp_residual import residual_mttkrps, squared_residual
from tenfold.algebra.mode_product import mode_dot, multi_mode_dot
from tenfold.algebra.mttkrp import mttkrp, mttkrp_sweep, mttkrps
from tenfold.algebra.products import hadamard, inner, khatri_rao, kronecker, outer
from tenfold.algebra.sparse import SparseUnfolding, sparse_mttkrp, sparse_multi_mode_dot
from tenfold.algebra.unfolding import fold, unfold, unvec, vec

__all__ = [
    "SparseUnfolding",
    "contract",
    "contract_axes",
    "fold",
    "hadamard",
    "inner",
    "join_blocks",
    "khatri_rao",
    "kronecker",
    "mode_dot",
    "mttkrp",
    "mttkrp_sweep",
    "mttkrps",
    "multi_mode_dot",
    "outer",
    "residual_mttkrps",
    "sparse_mttkrp",
    "sparse_multi_mode_dot",
    "split_blocks",
    "squared_residual",
    "unfold",
    "unvec",
    "vec",
]
