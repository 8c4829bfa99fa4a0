"""`python -m studies estimates [SETS]`: does the estimate's interval cover the true accuracy?

A hundred random support sets of each kind; the truth is the accuracy on all other examples of their
classes. Also the calibration error of held-back predictions, before and after.
"""

import time
from typing import Any

import numpy as np
import torch
from torch import nn

from kshot import calibration_error, fit_head
from kshot.evaluation.intervals import mean_interval
from studies.embedded import Embedded, load, result, store

__all__ = ["main"]

KINDS = (
    ("clinc150", 5, 5),
    ("clinc150", 20, 5),
    ("banking77", 5, 5),
    ("banking77", 20, 5),
    ("banking77", 20, 10),
    ("caltech101", 5, 5),
    ("caltech101", 20, 5),
)


def main(arguments: list[str]) -> None:
    """Draw support sets, estimate, compare."""
    number = int(arguments[0]) if arguments else 100
    for name, way, shot in KINDS:
        store("estimates", [_study(load(name), way, shot, number)])


def _study(data: Embedded, way: int, shot: int, number: int) -> dict[str, Any]:
    started = time.perf_counter()
    random = np.random.default_rng(0)
    X = torch.from_numpy(np.asarray(data.data.examples))
    truths, estimates, widths, covered, below, before, after = [], [], [], [], [], [], []
    for _ in range(number):
        classes = random.choice(data.data.num_classes, way, replace=False)
        drawn = [random.permutation(data.data.rows[c]) for c in classes]
        support = np.concatenate([rows[:shot] for rows in drawn])
        others = np.concatenate([rows[shot:] for rows in drawn])
        columns = torch.arange(way).repeat_interleave(shot)
        answers = torch.cat([torch.full((len(r) - shot,), k) for k, r in enumerate(drawn)])
        head = fit_head(X[support], columns, "logistic")
        logits = head.logits(X[others])
        # The truth for classes that are equally frequent, as they are in the support set. A mean of
        # means is exactly 1 where all are right, as the end of an interval is.
        right = (logits.argmax(-1) == answers).double()
        truth = float(torch.stack([right[answers == k].mean() for k in range(way)]).mean())
        accuracy = head.chosen.accuracy
        assert accuracy is not None
        truths.append(truth)
        estimates.append(accuracy.value)
        widths.append((accuracy.high - accuracy.low) / 2)
        covered.append(accuracy.low <= truth <= accuracy.high)
        below.append(truth < accuracy.low)
        raw = nn.functional.softmax(logits * head.chosen.temperature, -1)
        before.append(calibration_error(raw, answers))
        after.append(calibration_error(logits.softmax(-1), answers))
    return result(
        data,
        "logistic",
        mean_interval(np.array(truths)),
        protocol="random support sets",
        way=way,
        shot=shot,
        query_shot=0,
        started=started,
        estimate=float(np.mean(estimates)),
        half_width=float(np.mean(widths)),
        covered=float(np.mean(covered)),
        truth_below=float(np.mean(below)),
        calibration_error_before=float(np.mean(before)),
        calibration_error=float(np.mean(after)),
    )
