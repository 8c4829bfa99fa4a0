"""Nearest centroid: the pixel baseline."""

import pytest
import torch
from sklearn.neighbors import NearestCentroid as SklearnNearestCentroid
from torch import Tensor, nn

from kshot.backbones.conv4 import Conv4
from kshot.backbones.heads import Flatten
from kshot.episodes import Examples, one_hot
from kshot.learners.baselines.nearest_centroid import NearestCentroid


@pytest.fixture
def support() -> Examples:
    torch.manual_seed(0)
    labels = torch.tensor([[0, 1, 2, 1, 0, 2, 2]] * 2)
    return Examples(torch.randn(2, 7, 2, 3).double(), one_hot(labels, 3, torch.float64))


@pytest.mark.parametrize("normalize", [False, True])
def test_it_predicts_what_scikit_learn_predicts(support: Examples, normalize: bool):
    learner = NearestCentroid(Flatten((2, 3)), normalize=normalize)
    queries = torch.randn(2, 50, 2, 3).double()
    predicted = learner.predict(learner.adapt(support), queries).argmax(-1)

    def vectors(x: Tensor) -> Tensor:
        x = x.flatten(1)
        return x / x.norm(dim=1, keepdim=True) if normalize else x

    assert isinstance(support.inputs, Tensor)
    for task in range(2):
        model = SklearnNearestCentroid()
        model.fit(vectors(support.inputs[task]), support.targets[task].argmax(-1))
        assert (model.predict(vectors(queries[task])) == predicted[task].numpy()).all()


class Repeated(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).repeat(1, 4)


def test_logits_do_not_grow_with_the_size_of_the_embedding(support: Examples):
    narrow, wide = NearestCentroid(Flatten((2, 3))), NearestCentroid(Repeated())
    logits = (each.predict(each.adapt(support), support.inputs) for each in (narrow, wide))
    torch.testing.assert_close(*logits)


def test_nothing_is_learned_and_nothing_is_written():
    learner = NearestCentroid(Conv4((1, 16, 16), hidden=2)).train()
    assert not [p for p in learner.parameters() if p.requires_grad]
    before = [buffer.clone() for buffer in learner.buffers()]
    pictures = Examples(torch.randn(1, 3, 1, 16, 16), torch.eye(3)[None])
    learner.predict(learner.adapt(pictures), torch.randn(1, 4, 1, 16, 16))
    assert all(map(torch.equal, before, learner.buffers()))


def test_masked_rows_are_no_examples_whatever_their_target(support: Examples):
    learner = NearestCentroid(Flatten((2, 3)))
    assert isinstance(support.inputs, Tensor)
    first = Examples(support.inputs[:, :5], support.targets[:, :5])
    masked = support._replace(mask=torch.arange(7).expand(2, 7) < 5)
    torch.testing.assert_close(learner.adapt(masked).summary, learner.adapt(first).summary)
