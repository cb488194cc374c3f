"""Labelled images: from parquet, npz or folders, and scikit-learn's digits."""

from tenfold.data.digits import digits
from tenfold.data.images import ImageBatches, ImageData
from tenfold.data.open import open_data

__all__ = ["ImageBatches", "ImageData", "digits", "open_data"]
