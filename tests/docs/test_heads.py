"""The tables of docs/heads.md are what the studies measured."""

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/heads.md").read_text(encoding="utf-8").splitlines()


def rows(name: str, folder: str = "own_data") -> list[dict[str, Any]]:
    return json.loads((ROOT / f"results/{folder}/{name}.json").read_text(encoding="utf-8"))


def task(row: dict[str, Any]) -> str:
    return f"{row['data']}, {row['way']}-way {row['shot']}-shot"


def told(start: str) -> list[list[str]]:
    """The cells below a table's header that begins so."""
    first = next(number for number, line in enumerate(PAGE) if line.startswith(f"| {start} |"))
    lines = PAGE[first + 2 :]
    end = next(number for number, line in enumerate(lines) if not line.startswith("|"))
    return [line.strip("| ").split(" | ") for line in lines[:end]]


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def test_estimates():
    assert told("task | true accuracy") == [
        [
            task(row),
            percent(row["accuracy"]),
            percent(row["estimate"]),
            f"{100 * row['half_width']:.1f}",
            f"{100 * row['covered']:.0f} %",
            f"{100 * row['truth_below']:.0f} %",
            percent(row["calibration_error_before"]),
            percent(row["calibration_error"]),
        ]
        for row in in_order(rows("estimates"))
    ]


def test_rejection():
    shares = ("false_accept", "promised_false_accept", "false_reject", "promised_false_reject")
    assert told("task | AUROC") == [
        [
            task(row),
            f"{row['auroc']:.3f}",
            f"{row['auroc_by_confidence']:.3f}",
            *(percent(row[share]) for share in shares),
        ]
        for row in in_order(rows("rejection"))
    ]


def test_adapters():
    folds = defaultdict(list)
    for row in rows("adapter"):
        folds[task(row), row["learner"]].append(row)
    measured = {
        (name, adapter): [
            percent(sum(row["accuracy"] for row in parts) / len(parts)),
            *(difference(parts, head) for head in ("cosine", "logistic")),
        ]
        for (name, adapter), parts in folds.items()
    }
    table = told("task | adapter")
    assert len(table) == len(measured)
    assert {(name, adapter): cells for name, adapter, *cells in table} == measured


def test_tuned_blocks():
    names = {
        "characters": "characters of Omniglot",
        "caltech101": "Caltech-101",
        "faces": "ORL's faces",
        "banking77": "BANKING77",
    }
    measured = {(names[row["data"]], row["learner"]): row for row in rows("last_block")}
    table = told("data | encoder")
    assert len(table) == len(names)
    for name, _, *cells in table:
        frozen, tuned = measured[name, "logistic"], measured[name, "last_block"]
        found = tuned["differences"]["logistic"]
        change = f"{100 * found['difference']:+.1f} (± {100 * found['ci95']:.1f})"
        assert cells == [accuracy(frozen), accuracy(tuned), change]


def test_speed():
    measured = [*rows("own_data", "benchmarks"), *rows("encoders", "benchmarks")]
    assert told("case | ours") == [
        [
            row["case"],
            f"{row['ours']:.3g} {row['unit']}",
            f"{row['peer']:.3g} {row['unit']}",
            row["peer_name"],
        ]
        for row in measured
    ]
    assert f"is {measured[-2]['pairwise'] - 1:.0%}".replace("%", " %") in "\n".join(PAGE)


def accuracy(row: dict[str, Any]) -> str:
    return f"{100 * row['accuracy']:.1f} ± {100 * row['ci95']:.1f}"


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Intents first, then pictures; few classes first."""
    names = ["clinc150", "banking77", "caltech101"]
    return sorted(rows, key=lambda row: (names.index(row["data"]), row["way"], row["shot"]))


def difference(parts: list[dict[str, Any]], head: str) -> str:
    """The mean over folds, which are independent, and its interval."""
    found = [part["differences"][head] for part in parts]
    mean = sum(one["difference"] for one in found) / len(found)
    half = math.sqrt(sum(one["ci95"] ** 2 for one in found)) / len(found)
    return f"{100 * mean:+.1f} (± {100 * half:.1f})"
