"""Tensor trains, rings and trees, by SVDs, sampled fibres and alternation."""
