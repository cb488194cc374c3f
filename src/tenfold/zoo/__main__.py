"""`python -m tenfold.zoo`: the networks and their numbers of parameters, with 10 classes."""

import torch

from tenfold.zoo import networks


def lines() -> list[str]:
    """One aligned line a network; they are built without memory, on the meta device.

    >>> print(lines()[0])
    digits_cnn     260 682
    """
    width = max(map(len, networks))
    return [f"{name:<{width}}  {_parameters(name):>10,}".replace(",", " ") for name in networks]


def _parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in networks[name](10).parameters())


if __name__ == "__main__":
    print("\n".join(lines()))
