import numpy as np
import torch
from torch import nn

from kshot.config import EpisodeConfig
from kshot.data.dataset import LabelledDataset
from kshot.data.sampler import EpisodeSampler
from kshot.evaluation.confusion import Confusions, HardPair, count_confusions
from kshot.learners.baselines.nearest_centroid import NearestCentroid


def test_counts_agree_with_a_slow_loop():
    random = np.random.default_rng(0)
    points = random.normal(size=(60, 3)).astype(np.float32)
    points[30:] += 2
    data = LabelledDataset.from_labels(points, np.repeat(np.arange(6), 10))
    sampler = EpisodeSampler(data, EpisodeConfig(3, 1, 4), seed=0)
    learner = NearestCentroid(nn.Flatten())
    found = count_confusions(learner, sampler, 30)
    taken, met = np.zeros((2, 6, 6))
    for index in range(30):
        support, query, classes = sampler.sample([index])
        assert classes is not None
        with torch.no_grad():
            chosen = learner.predict(learner.adapt(support), query.inputs)[0].argmax(-1)
        for column, target in zip(chosen, query.targets[0].argmax(-1), strict=True):
            own = classes[0, target]
            taken[own, classes[0, column]] += 1
            met[own, classes[0]] += 1
    np.testing.assert_array_equal(found.taken, taken)
    np.testing.assert_array_equal(found.met, met)
    assert found.taken.sum() == 30 * 12


def test_the_hardest_pair_has_the_most_mistakes_in_both_directions():
    taken = np.array([[8, 1, 3], [4, 6, 0], [0, 0, 5]])
    met = np.array([[12, 12, 6], [10, 10, 0], [5, 0, 5]])
    confusions = Confusions(taken, met)
    assert confusions.hardest(5) == [HardPair(0, 1, 5, 22), HardPair(0, 2, 3, 11)]
    assert np.isnan(confusions.shares[1, 2]) and confusions.shares[0, 2] == 0.5
