"""Saving and loading compressed models."""

from tenfold.checkpoint.folder import load, save

__all__ = ["load", "save"]
