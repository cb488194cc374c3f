"""The handwritten digits that come with scikit-learn: real data without a download."""

import numpy as np
import torch

from tenfold.core.errors import MissingExtraError
from tenfold.data.images import ImageData


def digits() -> tuple[ImageData, ImageData]:
    """1438 images to train on and 359 to test on, 1×8×8, always the same (Alpaydin & Kaynak 1998).

    Raises:
        MissingExtraError: without scikit-learn.

    >>> train, test = digits()
    >>> tuple(train.images.shape), len(test), len(train.classes)
    ((1438, 1, 8, 8), 359, 10)
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "demo", "Loading the digits") from error
    pixels, labels = load_digits(return_X_y=True)
    images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    return ImageData(torch.from_numpy(images), torch.from_numpy(labels).long()).split(0.8, seed=0)
