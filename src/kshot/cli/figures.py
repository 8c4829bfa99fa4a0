"""Figures of runs: of training, of an episode, of mistakes, of adaptation, of scores."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from kshot.cli.episode_figures import attention_figures, embedding_figure, episode_figure
from kshot.cli.tables import condition, task_name
from kshot.config import EpisodeConfig, EvaluationConfig
from kshot.data.dataset import LabelledDataset
from kshot.data.sampler import EpisodeSampler
from kshot.evaluation.confusion import count_confusions
from kshot.evaluation.intervals import MeanInterval, mean_interval
from kshot.evaluation.similarity import layer_similarity
from kshot.learners.optimization.fast_weights import FastWeightLearner
from kshot.learners.optimization.lstm_meta_learner import LSTMMetaLearner
from kshot.plots import (
    PicturedPair,
    plot_adaptation,
    plot_comparison,
    plot_confusion,
    plot_gates,
    plot_hardest_pairs,
    plot_learning_curve,
    plot_similarity,
    plot_ways_and_shots,
)
from kshot.training.history import read_history
from kshot.training.run import Run

__all__ = [
    "adaptation_figure",
    "check_gates",
    "check_similarity",
    "comparison_figure",
    "gates_figure",
    "run_figures",
    "save_figures",
    "similarity_figure",
    "write_figures",
]

CONFUSION_EPISODES = 200
"""Episodes in which mistakes are counted."""
MOST_CLASSES = 30
"""Classes whose table of mistakes is still readable."""


def write_figures(run: Run, folder: Path, rows: Sequence[dict[str, Any]] = ()) -> list[Path]:
    """Draw the figures that apply to a run, and its result rows, into its folder; their paths."""
    return save_figures(run_figures(run, folder, rows), folder / "figures")


def save_figures(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Save figures by name in a folder, made when it is not there; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=150)
    return paths


def run_figures(run: Run, folder: Path, rows: Sequence[dict[str, Any]]) -> dict[str, Figure]:
    """The figures that apply to a run, by name: of its training, of an episode, of its mistakes.

    Args:
        run: the trained run.
        folder: its folder, which has the history of its training.
        rows: its result rows, drawn where they are of several ways or shots.
    """
    figures: dict[str, Figure] = {}
    history = read_history(folder / "metrics.jsonl")
    title = f"{run.config.learner.name} on {run.source.name} ({run.source.protocol})"
    if history:
        figures["learning_curve"] = plot_learning_curve(history, title=title)
    wanted = run.config.evaluation
    if run.tasks.kind == "regression":
        if run.learner.num_test_steps is not None:
            figures["adaptation"] = adaptation_figure({run.config.learner.name: run})
        return figures
    title += f": {wanted.split} classes"
    queries = min(5, *wanted.query_shots)
    episode = EpisodeConfig(min(wanted.ways), min(wanted.shots), queries, wanted.within)
    sampler = run.source.sampler(wanted.split, episode, wanted.seed)
    if len(run.tasks.input_shape) == 3:
        figures["episode"] = episode_figure(run, sampler, title)
    more = replace(episode, shot=max(wanted.shots), query_shot=min(10, *wanted.query_shots))
    embeddings = embedding_figure(
        run, run.source.sampler(wanted.split, more, wanted.seed), f"{title}, embeddings"
    )
    if embeddings is not None:
        figures["embeddings"] = embeddings
    figures |= attention_figures(run, title)
    figures |= confusion_figures(run, title)
    scores = {
        (row["way"], row["shot"]): MeanInterval(
            100 * row["accuracy"], 100 * row["ci95"], row["episodes"]
        )
        for row in reversed(rows)  # of several policies or query counts the first is drawn
        if row["learner"] == run.config.learner.name and "instance" not in row
    }
    if len(scores) > 1:
        figures["ways_and_shots"] = plot_ways_and_shots(scores, title=title)
    return figures


def confusion_figures(run: Run, title: str) -> dict[str, Figure]:
    """What a run's learner mistakes for what: its hardest pairs, and of few classes all."""
    wanted = run.config.evaluation
    episode = EpisodeConfig(
        max(wanted.ways), min(wanted.shots), max(wanted.query_shots), wanted.within
    )
    sampler = run.source.sampler(wanted.split, episode, wanted.seed)
    assert isinstance(sampler, EpisodeSampler), "classification has labelled data"
    number = min(CONFUSION_EPISODES, wanted.episodes)
    confusions, data = count_confusions(run.learner, sampler, number), sampler.dataset
    told = f"{episode.way}-way {episode.shot}-shot, {number} episodes"
    figures = {}
    if data.num_classes <= MOST_CLASSES:
        figures["confusion"] = plot_confusion(
            confusions.shares, data.class_names, title=f"{title}\n{told}"
        )
    pairs = confusions.hardest(6)
    if len(run.tasks.input_shape) == 3 and pairs:
        pictured = [
            PicturedPair(
                (data.class_names[pair.first], data.class_names[pair.second]),
                (_some_of(data, pair.first), _some_of(data, pair.second)),
                pair.mistaken,
                pair.queries,
            )
            for pair in pairs
        ]
        figures["hardest_pairs"] = plot_hardest_pairs(
            pictured, title=f"{title}, taken for each other\n{told}"
        )
    return figures


def _some_of(data: LabelledDataset, number: int, count: int = 4) -> Tensor:
    """The first pictures of a class."""
    rows = data.rows[number][:count]
    return data.read(rows, np.full(len(rows), number))


def adaptation_figure(runs: Mapping[str, Run]) -> Figure:
    """How the learners of some regression runs, by name, adapt to a task of the first one's."""
    first = next(iter(runs.values()))
    wanted = first.config.evaluation
    episode = EpisodeConfig(1, min(wanted.shots), 200)
    episodes = first.source.sampler(wanted.split, episode, wanted.seed).sample([0])
    query, support = _tensor(episodes.query.inputs), _tensor(episodes.support.inputs)
    order = query[0, :, 0].argsort()
    curves: dict[str, dict[int, np.ndarray]] = {}
    for name, run in runs.items():
        learner = run.learner.eval().float().cpu()
        assert learner.num_test_steps is not None, "adaptation is by inner steps"
        own_steps, curves[name] = learner.num_test_steps, {}
        with torch.no_grad():
            for steps in sorted({0, 1, max(own_steps, *wanted.num_test_steps, 1)}):
                learner.num_test_steps = steps
                values = learner.predict(learner.adapt(episodes.support), query)
                curves[name][steps] = values[0, order, 0].numpy()
        learner.num_test_steps = own_steps
    return plot_adaptation(
        query[0, order, 0].numpy(),
        episodes.query.targets[0, order, 0].numpy(),
        (support[0, :, 0].numpy(), episodes.support.targets[0, :, 0].numpy()),
        curves,
    )


def comparison_figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """Result rows of classification side by side, task by task."""
    tasks: dict[str, list[tuple[str, MeanInterval]]] = {}
    for row in rows:
        interval = MeanInterval(100 * row["accuracy"], 100 * row["ci95"], row["episodes"])
        name = f"{row['learner']} on {row['backbone']}, {condition(row)}, seed {row['seed']}"
        task = f"{row['way']}-way {row['shot']}-shot, {row['query_shot']} queries"
        if "instance" in row:
            task = task_name(row)
        results = tasks.setdefault(task, [])
        if (name, interval) not in results:  # every run brings the same pixel baseline
            results.append((name, interval))
    title = f"{rows[0]['data']} ({rows[0]['protocol']}), {rows[0]['split']}"
    return plot_comparison(tasks, metric="accuracy in %", title=title)


def check_similarity(runs: Mapping[str, Run]) -> None:
    """Refuse, before any work, runs of which `similarity_figure` cannot draw anything.

    Raises:
        ValueError: when a learner adapts no layers.
    """
    for name, run in runs.items():
        if not isinstance(run.learner, FastWeightLearner):
            raise ValueError(
                f"{name} adapts no layers of a network, so there is no similarity before and "
                "after to draw."
            )


def similarity_figure(runs: Mapping[str, Run], wanted: EvaluationConfig) -> Figure:
    """How much adaptation changes what each layer of some runs' learners, by name, computes."""
    episode = EpisodeConfig(wanted.ways[0], wanted.shots[0], wanted.query_shots[-1], wanted.within)
    similarities = {}
    for name, run in runs.items():
        assert isinstance(run.learner, FastWeightLearner), "only such a learner adapts layers"
        way = 1 if run.tasks.kind == "regression" else episode.way
        sampler = run.source.sampler(wanted.split, replace(episode, way=way), wanted.seed)
        layers = layer_similarity(run.learner, sampler, min(100, wanted.episodes))
        similarities[name] = {
            layer: mean_interval(values.numpy()) for layer, values in layers.items()
        }
    return plot_similarity(similarities)


def check_gates(run: Run) -> None:
    """Refuse, before any work, a run of which `gates_figure` cannot draw anything.

    Raises:
        ValueError: when its learner has no gates.
    """
    if not isinstance(run.learner, LSTMMetaLearner):
        raise ValueError(f"{run.config.learner.name} has no gates to draw: lstm_meta_learner has.")


def gates_figure(run: Run, wanted: EvaluationConfig) -> Figure:
    """How the gates of a run's learned update rule go over its steps, layer by layer."""
    assert isinstance(run.learner, LSTMMetaLearner), "only such a learner has gates"
    way = 1 if run.tasks.kind == "regression" else wanted.ways[0]
    episode = EpisodeConfig(way, wanted.shots[0], wanted.query_shots[-1], wanted.within)
    sampler = run.source.sampler(wanted.split, episode, wanted.seed)
    learner = run.learner.eval().float().cpu()
    gates = learner.gates(sampler.sample(range(10)).support)
    layers = {
        name.removesuffix(".weight"): value.flatten(3).permute(0, 3, 1, 2).flatten(0, 1).numpy()
        for name, value in gates.items()
        if value.dim() > 4  # matrices and kernels
    }
    return plot_gates(layers)


def _tensor(inputs: object) -> Tensor:
    assert isinstance(inputs, Tensor), "pictures and points are tensors"
    return inputs
