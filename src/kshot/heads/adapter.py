"""An adapter: how to correct an encoder's embeddings, learned across tasks of other classes."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kshot.config import EpisodeConfig, TrainingConfig
from kshot.data.dataset import LabelledDataset
from kshot.data.sampler import EpisodeSampler
from kshot.learners.metric.prototypical import ProtoNet
from kshot.training import meta_train

__all__ = ["LEAST_OTHER_CLASSES", "TRAINING", "Adapter", "restore_adapter", "train_adapter"]

LEAST_OTHER_CLASSES = 5
"""Of two examples each or more: tasks of fewer classes are all nearly the same."""

TRAINING = TrainingConfig(
    iterations=300, meta_batch_size=4, outer_lr=1e-4, schedule="cosine", device="cpu"
)
"""Chosen on validation intents of BANKING77 (`python -m studies adapter val`)."""


class Adapter(nn.Module):
    """An embedding of length 1 and a learned correction of it, zero at first.

    Args:
        dim: numbers of an embedding.
        hidden: units of the correction's layer.
    """

    def __init__(self, dim: int, hidden: int = 512) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, embeddings: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """Corrected embeddings, of length 1."""
        unit = F.normalize(embeddings, dim=-1)
        return F.normalize(unit + self.outer(F.relu(self.inner(unit))), dim=-1)


def train_adapter(
    embeddings: Float[np.ndarray, "n dim"],
    labels: Sequence[str | int | float | bool] | np.ndarray,
    *,
    seed: int = 0,
    quiet: bool = True,
) -> ProtoNet:
    """Learn across tasks how to correct embeddings: a prototypical network, by cosines.

    It is trained on one-shot tasks of up to twenty of the classes, 1,200 of them; docs/heads.md
    tells what it is worth on new ones.

    Args:
        embeddings: examples of other classes than those to be told apart, from the same encoder.
        labels: (n,) their classes. A class with a single example is left out.
        seed: of the first weights and of the tasks.
        quiet: show no progress.

    Returns:
        A learner over embeddings, for `Predictor.fit(..., adapter=...)` or as a head of its own.

    Raises:
        ValueError: for fewer than five classes of two examples or more.
    """
    _, columns, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    usable = np.flatnonzero(counts > 1)
    if len(usable) < LEAST_OTHER_CLASSES:
        raise ValueError(
            f"An adapter learns from {LEAST_OTHER_CLASSES} other classes or more with at least two "
            f"examples each, the more the better; there are {len(usable)}."
        )
    rows = np.asarray(embeddings, dtype=np.float32)
    others = LabelledDataset.from_labels(rows, columns).select(usable.tolist())
    episodes = EpisodeConfig(
        way=min(20, len(usable)), shot=1, query_shot=min(10, int(counts[usable].min()) - 1)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        learner = ProtoNet(Adapter(rows.shape[1]), distance="cosine")
    sampler = EpisodeSampler(others, episodes, seed=seed, split="train")
    meta_train(learner, sampler, TRAINING, quiet=quiet)
    return learner.eval()


def restore_adapter(weights: Mapping[str, Tensor]) -> ProtoNet:
    """An adapter from the `state_dict` of another."""
    hidden, dim = weights["encoder.inner.weight"].shape
    learner = ProtoNet(Adapter(dim, hidden), distance="cosine")
    learner.load_state_dict(dict(weights))
    return learner.eval()
