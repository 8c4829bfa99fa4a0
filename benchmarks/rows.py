"""Benchmark rows: what was measured beside what, written to results/benchmarks/."""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kshot.evaluation.results import git_revision, machine, versions

__all__ = ["alternate", "benchmark_row", "read_rows", "write_rows"]

FOLDER = Path(__file__).parents[1] / "results" / "benchmarks"


def benchmark_row(
    case: str, ours: float, peer: float | None, peer_name: str, unit: str, **more: Any
) -> dict[str, Any]:
    """A row in which `ratio` is ours / peer."""
    ratio = ours / peer if peer else None
    row = {"case": case, "ours": ours, "peer": peer, "peer_name": peer_name, "ratio": ratio}
    beside = "" if ratio is None else f"{peer_name} {peer:.4g}, ratio {ratio:.3g}"
    print(f"{case:<62} {ours:>9.4g} {unit:<12} {beside}")
    return {**row, "unit": unit, **more}


def read_rows(name: str, device: str = "cpu") -> list[dict[str, Any]]:
    """The rows of one benchmark on a kind of device; [] when it was not measured."""
    path = _path(name, device)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def write_rows(
    name: str,
    rows: list[dict[str, Any]],
    beside: Sequence[dict[str, Any]] = (),
    device: str = "cpu",
) -> None:
    """Write the rows of one benchmark with where they come from, beside others as they are."""
    provenance = {
        "command": f"python -m benchmarks {name}",
        "versions": versions(),
        "git": git_revision(),
        "machine": machine(),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    text = json.dumps([*beside, *({**row, **provenance} for row in rows)], indent=2)
    _path(name, device).write_text(text + "\n", encoding="utf-8")


def _path(name: str, device: str) -> Path:
    """Rows measured on a GPU have a file of their own."""
    return FOLDER / f"{name}{'' if device == 'cpu' else f'_{device}'}.json"


def alternate(
    ours: Callable[[], object], peer: Callable[[], object], repeats: int = 7
) -> tuple[float, float, float]:
    """Time two functions in turn, after a warm-up; medians of seconds and of the pairs' ratios."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        for function, measured in zip((ours, peer), times, strict=True):
            start = time.perf_counter()
            function()
            if repeat:
                measured.append(time.perf_counter() - start)
    ratios = [a / b for a, b in zip(*times, strict=True)]
    return statistics.median(times[0]), statistics.median(times[1]), statistics.median(ratios)
