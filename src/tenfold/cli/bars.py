"""Progress bars, on stderr, gone when done; none where no terminal would show them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed
from torch import Tensor


class Batches(Protocol):
    """(inputs, labels), and how often."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Bar:
    """One bar. It moves by `at`, or by the batches that are read from what `watching` returns."""

    progress: Progress
    task: TaskID
    title: str

    def at(self, done: int, total: int, text: str = "") -> None:
        """So much is done of so much; `text` is what is at hand."""
        self.progress.update(self.task, completed=done, total=total)
        if text:
            self.progress.update(self.task, description=f"{self.title}: {text}")

    def watching(self, batches: Batches) -> Batches:
        """The same batches; each one that is read moves the bar."""
        return Watched(batches, lambda: self.progress.advance(self.task))


@dataclass(frozen=True)
class Watched:
    """Batches that call `each` after every one."""

    batches: Batches
    each: Callable[[], None]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.batches:
            yield batch
            self.each()


@dataclass(frozen=True)
class Bars:
    """Where bars appear."""

    progress: Progress

    @contextmanager
    def bar(self, text: str, total: int | None = None) -> Iterator[Bar]:
        """A bar until the block is left; without a `total` it only shows that work goes on."""
        task = self.progress.add_task(text, total=total)
        try:
            yield Bar(self.progress, task, text)
        finally:
            self.progress.remove_task(task)


@contextmanager
def bars(quiet: bool) -> Iterator[Bars]:
    """Bars on stderr, if it is a terminal and `quiet` is not wanted."""
    console = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Elapsed()
    hidden = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        yield Bars(progress)
