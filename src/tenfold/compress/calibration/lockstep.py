"""Running a model on several batches in step: all stand still before a layer, or a ReLU, until told to."""

import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.compress.batches import Forward, outputs_of
from tenfold.compress.calibration.ramps import Relus

Stop = nn.Module | int
"""Where a pass stands still: before a layer, or before the ReLU of a number, counted from 0 in every pass."""

_current = threading.local()


class Walk:
    """A forward pass on one batch, in a thread of its own, which runs only while `next` waits for it."""

    def __init__(
        self, model: nn.Module, batch: Any, forward: Forward | None, relus: Collection[int] = ()
    ) -> None:
        self._call, self._relus = (model, batch, forward), frozenset(relus)
        device = torch.get_default_device()  # threads have one of their own
        self._device = None if device.type == "cpu" else device
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._at: tuple[Stop, Tensor] | None = None
        self._error: BaseException | None = None
        self._cancelled = self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def next(self) -> tuple[Stop, Tensor] | None:
        """Go on to the next call that is watched: the layer, or the number of the ReLU, and its input.

        None at the end.
        """
        self._at = None
        if not self._ended:
            self._go.release()
            self._stopped.acquire()
        if self._error is not None:
            raise self._error
        return self._at

    def cancel(self) -> None:
        """End the pass where it stands."""
        self._cancelled = True
        self._go.release()
        self._thread.join()

    def stand_still(self, stop: Stop, x: Tensor) -> None:
        """Wait in the thread of the pass."""
        if not self._cancelled:
            self._at = stop, x
            self._stopped.release()
            self._go.acquire()
        if self._cancelled:
            raise _Cancelled

    def _run(self) -> None:
        self._go.acquire()
        _current.walk = self
        try:
            if not self._cancelled:
                with ExitStack() as stack:
                    stack.enter_context(torch.no_grad())
                    if self._device is not None:
                        stack.enter_context(self._device)
                    if self._relus:
                        stack.enter_context(Relus(self._before_relu))
                    outputs_of(*self._call)
        except _Cancelled:
            pass
        except Exception as error:
            self._error = error
        finally:
            self._ended = True
            self._stopped.release()

    def _before_relu(self, number: int, x: Tensor) -> None:
        if number in self._relus:
            self.stand_still(number, x)


class _Cancelled(BaseException):
    """The pass is not needed any more. Not an error, so no `except Exception` stops it."""


@contextmanager
def in_step(
    model: nn.Module, stops: Iterable[Stop], batches: Sequence[Any], forward: Forward | None = None
) -> Iterator[list[Walk]]:
    """A walk of the model for every batch; each stands still before each call of one of the layers.

    Between two calls of `next` weights may be changed: a pass that stands before a layer has not used it yet.
    What comes to a ReLU may be changed in place.
    All activations that the passes still need are held meanwhile.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> with in_step(net, [net[2]], [torch.zeros(4, 2), torch.zeros(3, 2)]) as walks:
    ...     [tuple(walk.next()[1].shape) for walk in walks]
    [(4, 2), (3, 2)]
    """
    with ExitStack() as stack:
        relus = []
        for stop in stops:
            if isinstance(stop, int):
                relus.append(stop)
            else:
                stack.callback(stop.register_forward_pre_hook(_stand_still, with_kwargs=True).remove)
        walks = []
        for batch in batches:
            walks.append(Walk(model, batch, forward, relus))
            stack.callback(walks[-1].cancel)
        yield walks


def _stand_still(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Stop a pass that is a walk; any other goes through."""
    walk: Walk | None = getattr(_current, "walk", None)
    if walk is not None:
        walk.stand_still(layer, args[0] if args else kwargs["input"])
