"""`python -m studies heads DATA [EPISODES]`: every head and "auto", on the same episodes.

Published folds: 5-way 1- and 5-shot episodes of the test classes of each fold, and their mean. Then
all classes of the data at once, from five and ten examples each. `heads DATA mean` takes the mean
of stored folds again.
"""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from kshot import HEADS, EpisodeConfig, EpisodeSampler, MetaLearner, evaluate, fit_head
from kshot.episodes import Examples
from kshot.evaluation.evaluate import Evaluation, paired_difference
from kshot.evaluation.results import read_results
from studies.embedded import RESULTS, SETS, Embedded, load, result, store, tf_idf

__all__ = ["AutoHead", "main"]

AUTO_EPISODES = 150


class AutoHead(MetaLearner):
    """The head that `fit_head` chooses for each task by the task's own support set."""

    def adapt(self, support: Examples) -> list:
        """A fitted head for each task."""
        columns = support.targets.argmax(-1)
        return [fit_head(*task) for task in zip(support.inputs, columns, strict=True)]

    def predict(self, state: list, inputs: torch.Tensor, mask=None) -> torch.Tensor:
        """Calibrated logits."""
        return torch.stack([head.logits(x) for head, x in zip(state, inputs, strict=True)])


def main(arguments: list[str]) -> None:
    """Score heads on one data set."""
    name = arguments[0] if arguments else ""
    if name not in SETS:
        raise SystemExit(f"Give the data: {', '.join(SETS)}.")
    if arguments[1:] == ["mean"]:
        store(f"heads_{name}", _means(load(name)))
        return
    episodes = int(arguments[1]) if len(arguments) > 1 else 600
    data = load(name)
    for number, fold in enumerate(data.folds, 1):
        for shot in (1, 5):
            protocol = f"fold {number}" if len(data.folds) > 1 else "split"
            _score(data, fold["test"], protocol, 5, shot, episodes)
    if name != "caltech101":
        words = tf_idf(name)
        for number, fold in enumerate(words.folds, 1):
            for shot in (1, 5):
                _score(words, fold["test"], f"fold {number}", 5, shot, episodes, ("centroid",))
        store(f"heads_{name}", _means(data))
    for shot in (5, 10):
        names = data.data.class_names
        _score(data, names, "all classes", len(names), shot, 10)


def _score(
    data: Embedded,
    classes: list[str] | tuple[str, ...],
    protocol: str,
    way: int,
    shot: int,
    episodes: int,
    names: tuple[str, ...] = (*HEADS, "auto"),
) -> None:
    started = time.perf_counter()
    config = EpisodeConfig(way=way, shot=shot, query_shot=15)
    sampler = EpisodeSampler(data.select(classes), config, seed=1, split="test")
    found: dict[str, Evaluation] = {}
    for name in names:
        if name == "auto":  # the first episodes: a choice takes a third of a second
            found[name] = evaluate(AutoHead(), sampler, min(episodes, AUTO_EPISODES))
        else:
            found[name] = evaluate(HEADS[name](), sampler, episodes)
    first = next(iter(names))
    rows = []
    for name, scored in found.items():
        against = {}
        if name != first:
            difference = paired_difference(scored, _first(found[first], len(scored.scores)))
            against = {
                "against": {
                    "learner": first,
                    "difference": difference.mean,
                    "ci95": difference.half_width,
                }
            }
        where = {"protocol": protocol, "way": way, "shot": shot, "query_shot": 15}
        rows.append(result(data, name, scored.interval, **where, started=started, **against))
    if "auto" in found:
        auto = found["auto"]
        fixed = {name: _first(found[name], len(auto.scores)) for name in HEADS}
        best = max(HEADS, key=lambda name: np.mean(fixed[name].scores))
        rows[-1]["best"] = best
        rows[-1]["less_than_best"] = paired_difference(fixed[best], auto).mean
    store(f"heads_{data.name}", rows)


def _means(data: Embedded) -> list[dict[str, Any]]:
    """Rows of the mean over folds, which are equally long."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in read_results(RESULTS / f"heads_{data.name}.json"):
        if row["protocol"].startswith("fold "):
            groups.setdefault((row["learner"], row["backbone"], row["shot"]), []).append(row)
    return [_mean(rows) for rows in groups.values()]


def _mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    def mean_of(parts: list[dict[str, Any]], value: str) -> dict[str, float]:
        half_width = sum(part["ci95"] ** 2 for part in parts) ** 0.5 / len(parts)
        return {value: sum(part[value] for part in parts) / len(parts), "ci95": half_width}

    mean = rows[0] | mean_of(rows, "accuracy") | {"protocol": "mean of folds"}
    mean["episodes"] = sum(row["episodes"] for row in rows)
    if "against" in mean:
        mean["against"] = mean["against"] | mean_of([r["against"] for r in rows], "difference")
    if "less_than_best" in mean:
        mean["less_than_best"] = sum(row["less_than_best"] for row in rows) / len(rows)
        mean["best"] = [row["best"] for row in rows]
    return mean


def _first(scored: Evaluation, number: int) -> Evaluation:
    return replace(scored, scores=scored.scores[:number])
