"""`python -m studies rejection`: are inputs of no known class told from those of known ones?

Random support sets; unknown inputs are examples of all other classes. The threshold is chosen by
the support set alone, for 5 % false accepts.
"""

import time
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from kshot import fit_head
from kshot.evaluation.intervals import mean_interval
from kshot.heads import Familiarity, rejection_threshold
from studies.embedded import Embedded, load, result, store

__all__ = ["main"]

KINDS = (
    ("clinc150", 5, 5),
    ("clinc150", 30, 5),
    ("clinc150", 100, 10),
    ("banking77", 10, 5),
    ("banking77", 50, 10),
    ("caltech101", 5, 5),
    ("caltech101", 30, 5),
)


def main(arguments: list[str]) -> None:
    """Draw support sets, choose thresholds, compare."""
    number = int(arguments[0]) if arguments else 20
    for name, way, shot in KINDS:
        store("rejection", [_study(load(name), way, shot, number)])


def _study(data: Embedded, way: int, shot: int, number: int) -> dict[str, Any]:
    started = time.perf_counter()
    random = np.random.default_rng(0)
    X = torch.from_numpy(np.asarray(data.data.examples))
    columns = torch.arange(way).repeat_interleave(shot)
    found: dict[str, list[float]] = {
        key: []
        for key in (
            *("auroc", "auroc_by_confidence", "false_accept", "false_reject"),
            *("promised_false_accept", "promised_false_reject"),
        )
    }
    for _ in range(number):
        order = random.permutation(data.data.num_classes)
        drawn = [random.permutation(data.data.rows[c]) for c in order]
        support = X[np.concatenate([rows[:shot] for rows in drawn[:way]])]
        known = X[np.concatenate([rows[shot:] for rows in drawn[:way]])]
        unknown = X[np.concatenate(drawn[way:])]
        inputs = torch.cat([known, unknown])
        truth = np.arange(len(inputs)) < len(known)
        scores = Familiarity(support, columns)(inputs).numpy()
        confidence = fit_head(support, columns, "logistic").logits(inputs).softmax(-1).amax(-1)
        rejection = rejection_threshold(support, columns, false_accept=0.05)
        assert rejection is not None and rejection.false_reject is not None
        accepted = scores >= rejection.threshold
        found["auroc"].append(float(roc_auc_score(truth, scores)))
        found["auroc_by_confidence"].append(float(roc_auc_score(truth, confidence)))
        found["false_accept"].append(float(accepted[~truth].mean()))
        found["false_reject"].append(float((~accepted[truth]).mean()))
        found["promised_false_accept"].append(rejection.false_accept)
        found["promised_false_reject"].append(rejection.false_reject)
    return result(
        data,
        "familiarity",
        mean_interval(1 - np.array(found["false_reject"])),
        protocol="known among all others",
        way=way,
        shot=shot,
        query_shot=0,
        started=started,
        **{key: float(np.mean(values)) for key, values in found.items()},
    )
