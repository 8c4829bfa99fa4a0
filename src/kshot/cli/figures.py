"""Figures of a run: its learning curve, and an episode or an adaptation."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from kshot.cli.tables import condition, task_name
from kshot.config import EpisodeConfig, EvaluationConfig
from kshot.data.sampler import EpisodeSampler, Sampler
from kshot.evaluation.intervals import MeanInterval, mean_interval
from kshot.evaluation.similarity import layer_similarity
from kshot.learners.optimization.fast_weights import FastWeightLearner
from kshot.learners.optimization.lstm_meta_learner import LSTMMetaLearner
from kshot.losses import mask_absent
from kshot.plots import (
    plot_adaptation,
    plot_comparison,
    plot_episode,
    plot_gates,
    plot_learning_curve,
    plot_similarity,
)
from kshot.training.history import read_history
from kshot.training.run import Run

__all__ = ["adaptation_figure", "episode_figure", "write_figures"]


def write_figures(run: Run, folder: Path) -> list[Path]:
    """Draw the figures that apply to a run into its folder; their paths."""
    figures: dict[str, Figure] = {}
    history = read_history(folder / "metrics.jsonl")
    title = f"{run.config.learner.name} on {run.source.name} ({run.source.protocol})"
    if history:
        figures["learning_curve"] = plot_learning_curve(history, title=title)
    wanted = run.config.evaluation
    if run.tasks.kind == "regression":
        if run.learner.num_test_steps is not None:
            figures["adaptation"] = adaptation_figure({run.config.learner.name: run})
    elif len(run.tasks.input_shape) == 3:
        queries = min(5, *wanted.query_shots)
        episode = EpisodeConfig(min(wanted.ways), min(wanted.shots), queries, wanted.within)
        sampler = run.source.sampler(wanted.split, episode, wanted.seed)
        figures["episode"] = episode_figure(run, sampler, f"{title}: {wanted.split} classes")
    paths = []
    for name, figure in figures.items():
        path = folder / "figures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        paths.append(path)
    return paths


def episode_figure(run: Run | None, sampler: Sampler, title: str) -> Figure:
    """The first episode of a sampler, with the predictions of a run's learner if there is one."""
    assert isinstance(sampler, EpisodeSampler), "pictures come from labelled data"
    episodes = sampler.sample([0])
    support, query = _tensor(episodes.support.inputs)[0], _tensor(episodes.query.inputs)[0]
    columns, query_columns = (
        examples.targets[0].argmax(-1) for examples in (episodes.support, episodes.query)
    )
    way = episodes.support.targets.shape[-1]
    probabilities = None
    if run is not None:
        learner = run.learner.eval().float().cpu()
        with torch.no_grad():
            logits = learner.predict(learner.adapt(episodes.support), episodes.query.inputs)
            probabilities = mask_absent(logits, episodes.present).softmax(-1)[0]
    classes = [] if episodes.classes is None else episodes.classes[0].tolist()
    return plot_episode(
        torch.stack([support[columns == column] for column in range(way)]),
        query,
        probabilities,
        query_columns.tolist(),
        [sampler.dataset.class_names[k] for k in classes],
        title=title,
    )


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
        if learner.num_test_steps is None:
            raise ValueError(f"{name} takes no inner steps, so there is no adaptation to draw.")
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


def similarity_figure(runs: Mapping[str, Run], wanted: EvaluationConfig) -> Figure:
    """How much adaptation changes what each layer of some runs' learners, by name, computes."""
    episode = EpisodeConfig(wanted.ways[0], wanted.shots[0], wanted.query_shots[-1], wanted.within)
    similarities = {}
    for name, run in runs.items():
        if not isinstance(run.learner, FastWeightLearner):
            raise ValueError(
                f"{name} adapts no layers of a network, so there is no similarity before and "
                "after to draw."
            )
        way = 1 if run.tasks.kind == "regression" else episode.way
        sampler = run.source.sampler(wanted.split, replace(episode, way=way), wanted.seed)
        layers = layer_similarity(run.learner, sampler, min(100, wanted.episodes))
        similarities[name] = {
            layer: mean_interval(values.numpy()) for layer, values in layers.items()
        }
    return plot_similarity(similarities)


def gates_figure(run: Run, wanted: EvaluationConfig) -> Figure:
    """How the gates of a run's learned update rule go over its steps, layer by layer."""
    if not isinstance(run.learner, LSTMMetaLearner):
        raise ValueError(f"{run.config.learner.name} has no gates to draw: lstm_meta_learner has.")
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
