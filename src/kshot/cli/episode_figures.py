"""Figures of one episode: its pictures, its embeddings, and where a learner looks."""

from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from kshot.config import EpisodeConfig
from kshot.data.sampler import EpisodeSampler, Sampler
from kshot.episodes import Episodes
from kshot.evaluation.attention import Attentive, has_slots, read_weights
from kshot.learner import MetaLearner
from kshot.learners.embedding_learner import EmbeddingLearner
from kshot.learners.memory.sequence_learner import SequenceLearner
from kshot.losses import mask_absent
from kshot.plots import plot_attention, plot_embeddings, plot_episode, plot_memory
from kshot.training.run import Run

__all__ = ["attention_figures", "embedding_figure", "episode_figure"]


class _Drawn(NamedTuple):
    """One episode, and which column each of its examples is of."""

    episodes: Episodes
    support: Tensor
    query: Tensor
    support_columns: list[int]
    query_columns: list[int]
    class_names: list[str]

    @classmethod
    def first(cls, sampler: Sampler) -> "_Drawn":
        """The first episode of a sampler of labelled data."""
        assert isinstance(sampler, EpisodeSampler), "pictures come from labelled data"
        episodes = sampler.sample([0])
        support, query = episodes.support, episodes.query
        assert isinstance(support.inputs, Tensor) and isinstance(query.inputs, Tensor)
        classes = [] if episodes.classes is None else episodes.classes[0].tolist()
        return cls(
            episodes,
            support.inputs[0],
            query.inputs[0],
            support.targets[0].argmax(-1).tolist(),
            query.targets[0].argmax(-1).tolist(),
            [sampler.dataset.class_names[k] for k in classes],
        )

    def probabilities(self, learner: MetaLearner) -> Tensor:
        """(m, way) what a learner predicts for the queries."""
        support, query, _ = self.episodes
        logits = learner.predict(learner.adapt(support), query.inputs)
        return mask_absent(logits, self.episodes.present).softmax(-1)[0]


def episode_figure(run: Run | None, sampler: Sampler, title: str) -> Figure:
    """The first episode of a sampler, with the predictions of a run's learner if there is one."""
    drawn = _Drawn.first(sampler)
    columns = torch.tensor(drawn.support_columns)
    probabilities = None
    if run is not None:
        with torch.no_grad():
            probabilities = drawn.probabilities(_at_rest(run))
    return plot_episode(
        torch.stack([drawn.support[columns == k] for k in range(len(drawn.class_names))]),
        drawn.query,
        probabilities,
        drawn.query_columns,
        drawn.class_names,
        title=title,
    )


def embedding_figure(run: Run, sampler: Sampler, title: str) -> Figure | None:
    """Where the examples of the first episode lie for a run's encoder.

    None for a learner whose predictions are not made of distances between embeddings.
    """
    learner = _at_rest(run)
    if not isinstance(learner, EmbeddingLearner) or isinstance(learner, SequenceLearner):
        return None
    if next(learner.encoder.parameters(), None) is None:
        return None
    drawn = _Drawn.first(sampler)
    with torch.no_grad():
        support, query = learner.embed(drawn.episodes)
        predicted = drawn.probabilities(learner).argmax(-1).tolist()
    return plot_embeddings(
        support[0].flatten(1).numpy(),
        drawn.support_columns,
        query[0].flatten(1).numpy(),
        drawn.query_columns,
        predicted,
        drawn.class_names,
        title=title,
    )


def attention_figures(run: Run, title: str) -> dict[str, Figure]:
    """Where a run's learner looks in an episode: at support examples, or in its memory.

    By name; none for a learner that does neither.
    """
    learner, wanted = _at_rest(run), run.config.evaluation
    way = min(wanted.ways)
    if has_slots(learner):
        assert isinstance(learner, SequenceLearner)
        shot = min(10, max(*wanted.instances, *wanted.shots))
        sampler = run.source.sampler(
            wanted.split, EpisodeConfig(way, shot, 1, wanted.within), wanted.seed
        )
        drawn = _Drawn.first(sampler)
        heads = read_weights(learner, drawn.episodes)[0].unbind(1)
        weights = max(heads, key=lambda head: float(head.max()))  # the head that reads sharpest
        columns = [*drawn.support_columns, *drawn.query_columns]
        number = len(drawn.query_columns)
        return {"memory": plot_memory(weights.numpy(), columns, num_queries=number, title=title)}
    if not isinstance(learner, Attentive):
        return {}
    episode = EpisodeConfig(way, min(wanted.shots), min(2, *wanted.query_shots), wanted.within)
    drawn = _Drawn.first(run.source.sampler(wanted.split, episode, wanted.seed))
    support, query, _ = drawn.episodes
    with torch.no_grad():
        blocks = learner.attention(learner.adapt(support), query.inputs)[0]
    pictures = drawn.support.dim() == 4
    figures = {}
    for number, weights in enumerate(blocks):
        name = "attention" if len(blocks) == 1 else f"attention_{number + 1}"
        figures[name] = plot_attention(
            weights.numpy(),
            drawn.support_columns,
            drawn.query_columns,
            support=drawn.support if pictures else None,
            query=drawn.query if pictures else None,
            title=title if len(blocks) == 1 else f"{title}, block {number + 1}",
        )
    return figures


def _at_rest(run: Run) -> MetaLearner:
    """The run's learner as figures use it: in evaluation mode, on the CPU, in single precision."""
    return run.learner.eval().float().cpu()
