"""`python -m studies adapter`: does learning across tasks help on top of a good encoder?

On each published fold of the intents a small projection is trained on the training classes, as a
prototypical network and with a ridge-regression head (R2D2), and compared with plain heads on the
unseen test classes, on the same episodes. Rates and lengths were chosen on validation classes.
"""

import time

import torch

from kshot import (
    HEADS,
    R2D2,
    EpisodeConfig,
    EpisodeSampler,
    MetaLearner,
    ProtoNet,
    evaluate,
    meta_train,
)
from kshot.evaluation.evaluate import paired_difference
from kshot.heads.adapter import TRAINING, Adapter
from studies.embedded import load, result, store

__all__ = ["main"]

NAMES = ("clinc150", "banking77")


def main(arguments: list[str]) -> None:
    """Train on each fold, score on its test classes (or, with `val`, on its validation classes)."""
    split = arguments[0] if arguments else "test"
    for name in NAMES:
        data = load(name)
        for number, fold in enumerate(data.folds, 1):
            _score(data, fold, f"fold {number}", split)


def adapters(dim: int) -> dict[str, MetaLearner]:
    """The learners that are trained across tasks."""
    torch.manual_seed(0)
    return {
        "protonet": ProtoNet(Adapter(dim), distance="cosine"),
        "r2d2": R2D2(Adapter(dim)),
    }


def _score(data, fold, protocol: str, split: str) -> None:
    train = data.select(fold["train"])
    config = EpisodeConfig(way=20, shot=1, query_shot=10)
    learners: dict[str, MetaLearner] = {}
    seconds = {}
    for name, learner in adapters(data.data.input_shape[0]).items():
        begun = time.perf_counter()
        drawn = EpisodeSampler(train, config, seed=0, split="train")
        meta_train(learner, drawn, TRAINING, quiet=True)
        learners[name] = learner.eval()
        seconds[name] = round(time.perf_counter() - begun, 1)
    for shot in (1, 5):
        started = time.perf_counter()
        episode = EpisodeConfig(way=5, shot=shot, query_shot=15)
        sampler = EpisodeSampler(data.select(fold[split]), episode, seed=1, split=split)
        plain = {name: evaluate(HEADS[name](), sampler, 600) for name in ("cosine", "logistic")}
        rows = []
        for name, learner in learners.items():
            scored = evaluate(learner, sampler, 600)
            against = {other: paired_difference(scored, theirs) for other, theirs in plain.items()}
            row = result(
                data,
                name,
                scored.interval,
                protocol=protocol,
                way=5,
                shot=shot,
                query_shot=15,
                started=started,
                differences={
                    other: {"difference": each.mean, "ci95": each.half_width}
                    for other, each in against.items()
                },
            )
            rows.append(row | {"split": split, "train_seconds": seconds[name]})
        store("adapter" if split == "test" else "adapter_val", rows)
