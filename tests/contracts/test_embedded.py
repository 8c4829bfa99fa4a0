"""Embedding each example once gives the predictions of embedding it anew, for every learner."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from kshot.config import EpisodeConfig
from kshot.data.dataset import LabelledDataset
from kshot.data.sampler import EpisodeSampler
from kshot.evaluation.embedded import embedded_once
from kshot.learners.embedding_learner import EmbeddingLearner
from kshot.learners.registry import LEARNERS
from kshot.options import unwrapped

NAMES = [
    name
    for name, row in LEARNERS.items()
    if "classification" in row.kinds and issubclass(unwrapped(row.constructor), EmbeddingLearner)  # pyright: ignore
]


def test_there_are_such_learners():
    assert {"protonet", "relation", "simple_shot", "r2d2", "nearest_centroid"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_predictions_are_the_same(name: str, make_learner: Callable[..., Any]):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (60, 1, 16, 16), dtype=np.uint8)
    data = LabelledDataset.from_labels(values, np.repeat(np.arange(6), 10)).with_rotations()
    sampler = EpisodeSampler(data, EpisodeConfig((2, 4), (1, 3), 2), split="test")
    policy = {} if name == "nil" else {"batch_norm": "running"}
    learner = make_learner(name, "conv4_strided", **policy).eval()
    if name == "nil":
        learner.batch_norm = "running"
    with torch.no_grad():
        scored, drawn = embedded_once(learner, sampler)
        assert scored is not learner
        predictions = []
        for each, source in ((learner, sampler), (scored, drawn)):
            episodes = source.sample(range(6)).to("cpu", torch.float64)
            state = each.adapt(episodes.support)
            predictions.append(each.predict(state, episodes.query.inputs, episodes.query.mask))
    torch.testing.assert_close(*predictions)
