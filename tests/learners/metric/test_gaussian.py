"""Gaussian prototypical networks against the equations."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kshot.episodes import Episodes, Examples
from kshot.learners.metric.gaussian import GaussianProtoNet
from kshot.learners.metric.prototypical import ProtoNet


@pytest.mark.parametrize("covariance", ["radius", "diagonal"])
def test_certain_examples_weigh_more(covariance: str, encoder: nn.Module, vectors: Episodes):
    torch.manual_seed(0)
    learner = GaussianProtoNet(encoder, covariance=covariance).double()  # pyright: ignore
    support, query, _ = vectors
    logits = learner.predict(learner.adapt(support), query.inputs)
    for task, inputs in enumerate(query.inputs):
        z = [encoder(x) for x in support.inputs[task]]
        s = [1 + F.softplus(learner.certainty(each)) for each in z]
        labels = support.targets[task].argmax(-1).tolist()
        for k in range(3):
            members = [i for i, label in enumerate(labels) if label == k]
            precision = sum(s[i] for i in members)
            center = sum(s[i] * z[i] for i in members) / precision
            for row, x in enumerate(inputs):
                expected = -(precision * (encoder(x) - center) ** 2).sum().sqrt()
                torch.testing.assert_close(logits[task, row, k], expected, rtol=1e-6, atol=1e-6)


def test_with_the_same_certainty_everywhere_the_order_is_that_of_prototypes(
    encoder: nn.Module, vectors: Episodes
):
    learner, plain = GaussianProtoNet(encoder).double(), ProtoNet(encoder)
    nn.init.zeros_(learner.certainty.weight)
    shots = vectors.support.targets.sum(1)
    logits = learner.predict(learner.adapt(vectors.support), vectors.query.inputs)
    expected = plain.predict(plain.adapt(vectors.support), vectors.query.inputs)
    precision = shots.unsqueeze(1) * (1 + F.softplus(learner.certainty.bias))
    torch.testing.assert_close(-logits.square(), precision * expected, rtol=1e-6, atol=1e-6)


def test_a_query_on_a_prototype_has_a_finite_gradient(encoder: nn.Module):
    learner = GaussianProtoNet(encoder).double()
    support = torch.randn(1, 2, 4, dtype=torch.float64)
    state = learner.adapt(Examples(support, torch.eye(2, dtype=torch.float64).unsqueeze(0)))
    learner.predict(state, support).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learner.parameters())


def test_a_class_without_examples_is_not_chosen(encoder: nn.Module):
    learner = GaussianProtoNet(encoder).double()
    support = torch.randn(1, 2, 4, dtype=torch.float64)
    targets = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]], dtype=torch.float64)
    logits = learner.predict(learner.adapt(Examples(support, targets)), support)
    assert logits.isfinite().all() and (logits.argmax(-1) != 2).all()
