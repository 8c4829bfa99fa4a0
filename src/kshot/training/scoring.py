"""Scores of a run: rehearsed before it trains, measured after, the pixel baseline beside it."""

import copy
import hashlib
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch

from kshot.backbones.heads import Flatten
from kshot.backbones.normalization import has_running_averages
from kshot.config import (
    VARIATIONS,
    BatchNormPolicy,
    EpisodeConfig,
    EvaluationConfig,
)
from kshot.data.frozen import FrozenEpisodes, load_episodes
from kshot.data.splits import LabelledSplits
from kshot.evaluation.evaluate import Evaluation, evaluate
from kshot.evaluation.instances import evaluate_instances
from kshot.evaluation.results import git_revision, machine, result_row, versions
from kshot.learner import MetaLearner
from kshot.learners.baselines.nearest_centroid import NearestCentroid
from kshot.learners.registry import learner_row
from kshot.training.history import read_history
from kshot.training.run import (
    Run,
    read_description,
    training_sampler,
    validation_sampler,
    with_ensemble,
)

__all__ = ["Scored", "check_run", "evaluate_run"]


class Scored(NamedTuple):
    """A result row with the evaluation it sums up, and whether it is the baseline beside a run."""

    row: dict[str, Any]
    evaluation: Evaluation
    baseline: bool


def check_run(run: Run) -> None:
    """Rehearse a run on a copy of its learner, so that it cannot fail after training.

    Raises:
        ValueError: when a split has too few classes, or a class too few examples; when the learner
            cannot be evaluated as is wanted, or would train without normalization.
    """
    config, learner = run.config, copy.deepcopy(run.learner)
    if learner_row(config.learner.name).meta_trained:
        with torch.no_grad():
            learner.train().meta_loss(training_sampler(run).sample([0]))
        if learner.batch_norm == "running" and not has_running_averages(learner):
            raise ValueError(
                f"{config.learner.name} does not train BatchNorm's running averages, so under "
                "batch_norm='running' it would train without normalization. Choose batch, support "
                "or support_and_query."
            )
        validation = validation_sampler(run)
        if validation is not None:
            validation.sample([0])
    _check_ensemble(run)
    for episode, policy, steps, _ in _conditions(config.evaluation, learner):
        sampler = run.source.sampler(config.evaluation.split, episode, config.evaluation.seed)
        evaluate(learner, sampler, 2, batch_norm=policy, num_test_steps=steps)
    for episode in _sequences(config.evaluation):
        sampler = run.source.sampler(config.evaluation.split, episode, config.evaluation.seed)
        evaluate_instances(learner, sampler, 2, instances=config.evaluation.instances)


def evaluate_run(
    run: Run,
    folder: Path,
    evaluation: EvaluationConfig | None = None,
    *,
    command: str | None = None,
    frozen: Path | None = None,
) -> Iterator[Scored]:
    """Score a run's learner, and the pixel nearest-centroid baseline beside it, one by one.

    All of them may take long: each can be kept before the next is there.

    Args:
        run: the trained run.
        folder: its folder, which says where the numbers come from.
        evaluation: which numbers; None takes the run's own configuration.
        command: the command that asks for the numbers, when it is not the one that trained.
        frozen: a file of episodes to score on, instead of drawing them by way, shot and seed.
    """
    description = read_description(folder)
    provenance = {
        key: description[key] for key in ("command", "recipe", "versions", "git", "machine")
    }
    if command is not None:
        provenance |= {"command": f"{provenance['command']}; {command}"}
        provenance |= {"versions": versions(), "git": git_revision(), "machine": machine()}
    wanted = evaluation or run.config.evaluation
    trained = {
        "train_seconds": round(run.training.seconds, 1),
        "train_iterations": run.training.iteration,
        "best_iteration": run.training.best_iteration or run.training.iteration,
        "validation_curve": _validation_curve(folder),
    }
    untrained = {"train_seconds": 0.0, "train_iterations": 0, "best_iteration": 0}
    stored = None
    if frozen is not None:
        wanted, stored = _frozen(run, wanted, frozen)
        digest = hashlib.sha256(frozen.read_bytes()).hexdigest()[:12]
        provenance |= {"evaluation_seed": None, "frozen": f"{frozen.name} {digest}"}
        provenance |= {"within": None}
    own = (run.config.learner.name, run.config.backbone.name)
    candidates = [(*own, run.learner, trained)]
    if run.tasks.kind == "classification" and own != ("nearest_centroid", "flatten"):
        # Cosine, as the pixel baseline of the papers.
        pixels = NearestCentroid(Flatten(run.tasks.input_shape), normalize=True)
        candidates.append(("nearest_centroid", "flatten", pixels, untrained))
    row_of = partial(
        result_row, run.config, wanted, protocol=run.source.protocol, provenance=provenance
    )
    ensembles = {
        count: with_ensemble(run, folder, count).learner for count in wanted.ensemble or (1,)
    }
    for episode, policy, steps, count in _conditions(wanted, run.learner):
        sampler = stored or run.source.sampler(wanted.split, episode, wanted.seed)
        first_policy = policy in (None, *wanted.batch_norm[:1])
        first_steps = steps in (None, *wanted.num_test_steps[:1])
        first = first_policy and first_steps and count == next(iter(ensembles))
        for name, backbone, learner, training in candidates if first else candidates[:1]:
            own = learner is run.learner
            result = evaluate(
                ensembles[count] if own else learner,
                sampler,
                wanted.episodes,
                batch_episodes=wanted.batch_episodes,
                batch_norm=policy,
                num_test_steps=steps if own else None,
            )
            told = {"learner": name, "backbone": backbone, "training": training}
            row = row_of(result, episode, **told, ensemble=count if own else 1)
            yield Scored(row, result, not own)
    for episode, (name, backbone, learner, training) in product(_sequences(wanted), candidates):
        sampler = run.source.sampler(wanted.split, episode, wanted.seed)
        results = evaluate_instances(
            learner,
            sampler,
            wanted.episodes,
            instances=wanted.instances,
            batch_episodes=wanted.batch_episodes,
        )
        for instance, result in results.items():
            told = {"learner": name, "backbone": backbone, "training": training}
            row = row_of(result, episode, **told, instance=instance)
            yield Scored(row, result, learner is not run.learner)


def _check_ensemble(run: Run) -> None:
    config, training = run.config, run.config.training
    validations = math.ceil(training.iterations / training.validate_every)
    if training.patience:
        validations = min(validations, training.patience + 1)  # it may stop then
    if not learner_row(config.learner.name).meta_trained or validation_sampler(run) is None:
        validations = 0
    kept, wanted = min(training.keep_best, validations), max(config.evaluation.ensemble, default=1)
    if 1 < wanted > kept:
        raise ValueError(
            f"An ensemble of {wanted} is wanted, and of {validations} validations the weights of "
            f"{kept} would be kept: raise training.keep_best, or validate more often."
        )


def _validation_curve(folder: Path) -> list[list[int | float]]:
    """The iteration and the score of each validation of a training, to be kept with its rows."""
    return [
        [line["iteration"], round(score, 4)]
        for line in read_history(folder / "metrics.jsonl")
        for name, score in line.items()
        if name.startswith("validation ") and name != "validation ci95"
    ]


def _frozen(
    run: Run, wanted: EvaluationConfig, path: Path
) -> tuple[EvaluationConfig, FrozenEpisodes]:
    """The stored episodes of a file, and what is wanted of them."""
    if not isinstance(run.source, LabelledSplits):
        raise ValueError(f"{run.source.name} has no classes, so no frozen episodes.")
    stored = load_episodes(path, run.source.dataset(wanted.split))
    if min(part.min() for part in stored.indices) < 0:
        raise ValueError(
            f"The episodes in {path} are of several ways or shots, and a result has one: score "
            "them with evaluate(learner, load_episodes(path, dataset))."
        )
    way, shot, query_shot = stored.shape
    return replace(
        wanted,
        ways=(way,),
        shots=(shot,),
        query_shots=(query_shot,),
        episodes=len(stored),
        instances=(),
        **VARIATIONS,
    ), stored


def _sequences(wanted: EvaluationConfig) -> Iterator[EpisodeConfig]:
    """Episodes whose support examples are scored in turn, when that is wanted."""
    varied = {key: getattr(wanted, key) for key in VARIATIONS}
    for way in wanted.ways if wanted.instances else ():
        yield EpisodeConfig(way, max(wanted.instances), 1, wanted.within, **varied)


def _conditions(
    wanted: EvaluationConfig, learner: MetaLearner
) -> Iterator[tuple[EpisodeConfig, BatchNormPolicy | None, int | None, int]]:
    """Episodes, BatchNorm policy, inner steps and members of an ensemble of every row."""
    ways = wanted.ways if learner.loss.kind == "classification" else (1,)
    # Without BatchNorm all policies are one.
    policies = wanted.batch_norm if learner.batch_norm != "none" else ()
    for way, shot, query_shot, policy, steps, count in product(
        ways,
        wanted.shots,
        wanted.query_shots,
        policies or (None,),
        wanted.num_test_steps or (None,),
        wanted.ensemble or (1,),
    ):
        varied = {key: getattr(wanted, key) for key in VARIATIONS}
        yield EpisodeConfig(way, shot, query_shot, wanted.within, **varied), policy, steps, count
