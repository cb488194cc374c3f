"""How long layers take by their ranks: each kind of layer is measured once, and kept in a file."""

import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tenfold.compress.surface import Surface
from tenfold.compress.timing import Clock, Question, timed, undisturbed
from tenfold.core.atomic import StrPath, check_file, write_text
from tenfold.core.errors import CheckpointError, OptionError
from tenfold.core.layout import Layout
from tenfold.core.network import Axis
from tenfold.formats import Format

FORMAT = "tenfold-latencies-1"


class LatencyTable:
    """Times of layers, each measured when it is first asked for, and kept in a file if one is given.

    A kind of layer (type, settings, dtype, input) in a format and a layout is timed at 25 ranks at most, in
    turn with the dense layer, whose time is their unit, and a product of two matrices, whose time is that of
    dense layers; between these ranks `Surface` reads it off. Two layers of one kind are timed once.
    `measured` counts the layers that were timed.

    Times depend on the machine: the file keeps those of different devices, numbers of cores and threads, and
    versions of torch apart, and several runs may add to it one after the other. Large ranks are timed at
    multiples of 8; some hardware is slower at those in between, which `Budget(multiple=8)` avoids. A layer is
    timed by itself: what its neighbours do to it, such as filling the cache or handing on activations in
    another memory order, is not seen. Check the compressed model with `measure.compare`.

    Args:
        path: a JSON file, new or of an earlier table.
        device: where to run; by default where each layer is.
        warmup: rounds that are not counted.
        repeats: rounds whose 10th percentile is taken.
        clock: takes the times, instead of `undisturbed`.

    Raises:
        OptionError: unless `warmup` >= 0 and `repeats` >= 1, and the device is there.
        CheckpointError: if the file is something else.
        TargetError: if the file cannot be written.

    >>> LatencyTable().measured
    0
    """

    def __init__(
        self,
        path: StrPath | None = None,
        *,
        device: torch.device | str | None = None,
        warmup: int = 3,
        repeats: int = 20,
        clock: Clock | None = None,
    ) -> None:
        if warmup < 0 or repeats < 1:
            raise OptionError(
                f"a table with warmup={warmup} and repeats={repeats} came.", "Give 0 or more, and 1 or more."
            )
        self.path = None if path is None else Path(path)
        self.device = None if device is None else _there(device)
        self.clock: Clock = clock or partial(undisturbed, warmup=warmup, repeats=repeats)
        self.measured = 0
        if self.path is not None:
            check_file(self.path)
        self._known = _read(self.path)

    def times(self, question: Question) -> tuple[float, Surface]:
        """Seconds of the dense layer, and what its factors take as a multiple of them; measured if need be.

        Raises:
            ModelError: if there is no device to run it on.
        """
        device = self.device or question.weight.device
        name = described(device)
        known = self._known.get(name, {"layers": {}})
        layers = known["layers"]
        if question.form not in layers.get(question.layer, {"forms": ()})["forms"]:
            found = timed(question, device, self.clock)
            self.measured += found.layers
            self._known[name] = known
            known.setdefault("yardstick", found.yardstick)
            entry = layers.setdefault(question.layer, {"dense": found.dense, "forms": {}})
            entry["forms"][question.form] = {"knots": dict(found.knots), "times": list(found.factors)}
            self._save()
        entry = layers[question.layer]
        return entry["dense"] * known["yardstick"], _surface(entry["forms"][question.form])

    def _save(self) -> None:
        """Write all that is known, beside what others have written meanwhile."""
        if self.path is None:
            return
        devices = _read(self.path)
        for device, known in self._known.items():
            there = devices.setdefault(device, {"layers": {}} | known)["layers"]
            for layer, entry in known["layers"].items():
                forms = there.get(layer, {}).get("forms", {}) | entry["forms"]
                there[layer] = {"dense": entry["dense"], "forms": forms}
        write_text(self.path, json.dumps({"format": FORMAT, "devices": devices}, indent=1) + "\n")


def latency_of(
    dense: nn.Module,
    kind: type[Format],
    layout: Layout,
    example: tuple[int, ...],
    table: LatencyTable,
    whole: Sequence[int] = (),
) -> Callable[[Mapping[Axis, int] | None], int]:
    """Nanoseconds of one forward pass over an input of shape `example`, by ranks; None is the dense layer.

    Nothing is measured before the first call. The times do not fall when a rank grows. `whole` numbers the
    modes that stay whole.

    >>> from tenfold.formats import LowRank
    >>> layout = Layout.parse("o i -> o i").bind((64, 32))
    >>> time = latency_of(nn.Linear(32, 64), LowRank, layout, (8, 32), LatencyTable(repeats=3))
    >>> 0 < time({"R": 1}) <= time({"R": 32}), time(None) > 0
    (True, True)
    """
    times = cache(partial(table.times, Question(dense, kind, layout, example, tuple(whole))))

    def nanoseconds(ranks: Mapping[Axis, int] | None) -> int:
        seconds, factors = times()
        return max(1, round(1e9 * seconds * (1.0 if ranks is None else factors(ranks))))

    return nanoseconds


def described(device: torch.device) -> str:
    """What says how fast a device is: times of others are not compared with its own.

    >>> f"{torch.get_num_threads()} threads" in described(torch.device("cpu"))
    True
    """
    version = f"torch {torch.__version__}"
    if device.type == "cuda":
        tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        return f"{torch.cuda.get_device_name(device)}, tf32 {tf32[0]} {tf32[1]}, {version}"
    if device.type == "cpu":
        return f"{cpu_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {version}"
    return f"{device}, {version}"


@cache
def cpu_name(facts: Path = Path("/proc/cpuinfo")) -> str:
    """The name of the processor and the number of its model, as Linux tells them; else its name in torch.

    Some virtual machines call all processors of a maker alike, but for the number.
    """
    text = facts.read_text(encoding="utf-8", errors="replace") if facts.exists() else ""
    found = dict(re.findall(r"^(model name|model)[ \t]*:[ \t]*(.*\S)", text, re.MULTILINE))
    if "model name" in found:
        return f"{found['model name']} (model {found.get('model', 'unknown')})"
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return str(capabilities.get("cpu_name", torch.backends.cpu.get_cpu_capability()))


def _there(device: torch.device | str) -> torch.device:
    """The device, once something was put on it."""
    try:
        return torch.empty(1, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise OptionError(
            f"the device '{device}' cannot be used: {str(error).splitlines()[0]}", 'Use device="cpu".'
        ) from error


def _surface(form: Mapping[str, Any]) -> Surface:
    knots = {b: tuple(k) for b, k in form["knots"].items()}
    return Surface.through(knots, np.array(form["times"]).reshape([len(k) for k in knots.values()]))


def _read(path: Path | None) -> dict[str, Any]:
    """Device -> seconds of the yardstick, and layer -> the dense layer's multiple of it, and for every form
    its knots and times."""
    if path is None or not path.exists() or not path.stat().st_size:
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        known = data["devices"].values()
        entries = [entry for device in known for entry in device["layers"].values()]
        units = [device["yardstick"] for device in known]
        if data["format"] != FORMAT or not all(map(_is_time, units)) or not all(map(_is_sound, entries)):
            raise ValueError("it is of another kind, or spoilt")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"'{path}' is no table of latencies: {error!r}.", "Give another file, or delete this one."
        ) from error
    devices: dict[str, Any] = data["devices"]
    return devices


def _is_time(value: Any) -> bool:
    return bool(0 < value < math.inf)


def _is_sound(entry: Any) -> bool:
    """Whether all times are positive and finite, knots rise, and each of their points has a time."""
    forms = entry["forms"].values()
    times = [entry["dense"], *(time for form in forms for time in form["times"])]
    knots = [k for form in forms for k in form["knots"].values()]
    counts = [(math.prod(map(len, form["knots"].values())), len(form["times"])) for form in forms]
    return (
        all(map(_is_time, times))
        and all(k and k == sorted(set(k)) for k in knots)
        and all(points == given for points, given in counts)
    )
