"""What studies of optimizers share: rows of results/optimizers, and how they are told."""

import itertools
import json
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kshot.data.atomic import write_atomically
from kshot.evaluation.results import git_revision, machine, versions

__all__ = ["FOLDER", "store"]

FOLDER = Path("results/optimizers")


def store(file: str, rows: Sequence[dict[str, Any]], *columns: str) -> None:
    """Write rows to results/optimizers/FILE.json with where they come from; print some medians.

    Args:
        file: name of the file; what was in it is replaced.
        rows: each says its `problem`, `optimizer` and `seed`.
        columns: numbers of a row whose medians over seeds are printed.
    """
    origin = {
        "command": "python -m studies " + shlex.join(sys.argv[1:]),
        "versions": versions(),
        "git": git_revision(),
        "machine": machine(),
    }
    # A line a row, for curves are long.
    lines = ",\n".join(json.dumps({**row, **origin}) for row in rows)
    write_atomically(FOLDER / f"{file}.json", f"[\n{lines}\n]\n")
    groups: dict[tuple[str, str, str], list[float]] = {}
    for column, row in itertools.product(columns, rows):
        groups.setdefault((column, row["problem"], row["optimizer"]), []).append(row[column])
    for (column, problem, optimizer), found in groups.items():
        print(
            f"{problem:34} {optimizer:18} {column} {statistics.median(found):.4g} "
            f"({min(found):.4g} to {max(found):.4g}, {len(found)} seeds)"
        )
