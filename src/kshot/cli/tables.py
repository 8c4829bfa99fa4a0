"""Tables on the terminal: result rows and registries."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = [
    "condition",
    "learner_name",
    "print_results",
    "print_table",
    "published",
    "score_text",
    "task_name",
]


def print_results(rows: Sequence[dict[str, Any]]) -> None:
    """Print result rows with their intervals and what identifies them."""
    if not rows:
        return
    first = rows[0]
    title = f"{first['data']} / {first['protocol']}, {first['split']}, {first['episodes']} episodes"
    table = [
        [
            learner_name(row),
            task_name(row),
            str(row["query_shot"]),
            score_text(row),
            row["batch_norm"] + (" (transductive)" if row["transductive"] else ""),
            published(row),
        ]
        for row in rows
    ]
    columns = ["learner", "task", "queries", "score, 95 % interval", "BatchNorm", "published"]
    print_table(title, columns, table)


def learner_name(row: dict[str, Any]) -> str:
    """What a row scored; the baseline may be the same learner, on the inputs as they are."""
    return row["learner"] + (" on flatten" if row["backbone"] == "flatten" else "")


def task_name(row: dict[str, Any]) -> str:
    """The task of a result row, such as "5-way 1-shot, 3 steps" or "5-way, instance 2 of 10"."""
    if "instance" in row:
        return f"{row['way']}-way, instance {row['instance']} of {row['shot']}"
    way = "" if row["accuracy"] is None else f"{row['way']}-way "
    return f"{way}{row['shot']}-shot{_steps(row)}"


def condition(row: dict[str, Any]) -> str:
    """Under what a row was scored, such as "batch, 3 steps"."""
    return row["batch_norm"] + _steps(row)


def _steps(row: dict[str, Any]) -> str:
    """How many inner steps a row's learner took, and how many learners, where that is told."""
    steps, count = row.get("num_test_steps"), row.get("ensemble", 1)
    taken = "" if steps is None else f", {steps} step{'s' * (steps != 1)}"
    return taken if count == 1 else f"{taken}, mean of {count}"


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a plain table."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, header_style="bold")
    for row in rows:
        table.add_row(*row)
    # What reads a pipe or a file cuts lines as it likes; a terminal has its width.
    Console(width=None if Console().is_terminal else 500).print(table)


def score_text(row: dict[str, Any]) -> str:
    """The score of a result row with its 95 % interval and unit."""
    if row["accuracy"] is not None:
        return f"{100 * row['accuracy']:.2f} +- {100 * row['ci95']:.2f} %"
    return f"MSE {row['mean_squared_error']:.3f} +- {row['ci95']:.3f}"


def published(row: dict[str, Any]) -> str:
    """The paper's figure that stands beside a result row, or "-"."""
    if not row["published"]:
        return "-"
    return f"{100 * row['published']['accuracy']:.1f} %"
