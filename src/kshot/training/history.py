"""What happened in training: JSON lines in the run's folder, and progress on the terminal."""

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from kshot.config import TrainingConfig
from kshot.data.atomic import write_atomically
from kshot.extras import install_command

__all__ = ["History", "read_history"]


class History:
    """Writes metrics.jsonl (and TensorBoard events) and shows progress while it is open.

    Args:
        folder: the run's folder; None writes nothing.
        config: the training it is of.
        start: iterations done before; later lines of an interrupted run are dropped.
        quiet: show nothing.
    """

    def __init__(
        self,
        folder: Path | None,
        config: TrainingConfig,
        *,
        start: int = 0,
        quiet: bool = False,
    ) -> None:
        self.path = None if folder is None else folder / "metrics.jsonl"
        self._events = _event_writer(folder) if config.tensorboard and folder else None
        if self.path is not None:
            kept = [row for row in read_history(self.path) if row["iteration"] <= start]
            write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        self._live = sys.stderr.isatty() and not quiet
        self._quiet = quiet
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not self._live,
        )
        self._task = self._progress.add_task(
            "meta-training", total=config.iterations, completed=start, numbers=""
        )
        self._numbers: dict[str, str] = {}
        self._last_print = time.monotonic()

    def __enter__(self) -> "History":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
        if self._events is not None:
            self._events.close()

    def show(self, iteration: int, **numbers: float) -> None:
        """Show numbers of an iteration; on a terminal live, in a log every ten seconds."""
        self._numbers |= {name: f"{name} {value:.4g}" for name, value in numbers.items()}
        line = "  ".join(self._numbers.values())
        self._progress.update(self._task, completed=iteration, numbers=line)
        if not self._live and not self._quiet and time.monotonic() - self._last_print > 10:
            self._last_print = time.monotonic()
            total = int(self._progress.tasks[0].total or 0)
            print(f"iteration {iteration}/{total}  {line}", file=sys.stderr, flush=True)

    def write(self, iteration: int, **numbers: float) -> None:
        """Append one line of numbers."""
        self.show(iteration, **numbers)
        if self.path is not None:
            row = {"iteration": iteration, **numbers}
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        if self._events is not None:
            for name, value in numbers.items():
                self._events.add_scalar(name, value, iteration)


def read_history(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file, without a last one that was cut off; [] when there is none."""
    rows = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break  # a process was killed while it wrote this line
    return rows


def _event_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError(
            f"tensorboard=True needs TensorBoard: {install_command('tensorboard')}."
        ) from None
    return SummaryWriter(folder / "tensorboard")
