"""Semi-supervised prototypical networks against the equations."""

import pytest
import torch
from torch import Tensor, nn

from kshot.episodes import Episodes, Examples
from kshot.learners.metric.prototypical import ProtoNet
from kshot.learners.metric.semi_supervised import SemiSupervisedProtoNet
from kshot.testing import meta_gradient_error

REFINEMENTS = ["soft", "distractors", "masked"]


def partly_labelled(episodes: Episodes) -> Examples:
    """The support set, and the queries as unlabelled examples."""
    support, query, _ = episodes
    return Examples(
        torch.cat([support.inputs, query.inputs], 1),  # pyright: ignore
        torch.cat([support.targets, torch.zeros_like(query.targets)], 1),
    )


def built(encoder: nn.Module, refinement: str, **options) -> SemiSupervisedProtoNet:
    torch.manual_seed(0)
    learner = SemiSupervisedProtoNet(encoder, refinement=refinement, **options).double()  # pyright: ignore
    if refinement == "distractors":
        learner.log_radius.data.fill_(0.4)
    return learner


def refined(learner: SemiSupervisedProtoNet, z: Tensor, labels: Tensor, others: Tensor) -> Tensor:
    """One step of k-means for one task, one class at a time."""
    prototypes = torch.stack([z[labels == k].mean(0) for k in range(3)])
    d = (others.unsqueeze(1) - prototypes).square().sum(-1)
    if learner.refinement == "distractors":
        radius = learner.log_radius.exp()
        own = -d / 2
        none = -others.square().sum(-1, keepdim=True) / (2 * radius**2) - radius.log()
        shares = torch.cat([own, none], 1).softmax(-1)[:, :3]
    else:
        shares = (-d).softmax(-1)
    if learner.refinement == "masked":
        for k in range(3):
            relative = d[:, k] / d[:, k].mean()
            centered = relative - relative.mean()
            variance = centered.square().mean()
            numbers = torch.stack(
                [
                    relative.min(),
                    relative.max(),
                    variance,
                    (centered**3).mean() / variance**1.5,
                    (centered**4).mean() / variance**2 - 3,
                ]
            )
            bound, slope = learner.bounds(numbers).exp()
            shares[:, k] *= ((bound - relative) * slope).sigmoid()
    totals = [z[labels == k].sum(0) + shares[:, k] @ others for k in range(3)]
    counts = [(labels == k).sum() + shares[:, k].sum() for k in range(3)]
    return torch.stack([total / count for total, count in zip(totals, counts, strict=True)])


@pytest.mark.parametrize("refinement", REFINEMENTS)
def test_unlabelled_examples_move_the_prototypes(
    refinement: str, encoder: nn.Module, vectors: Episodes
):
    learner = built(encoder, refinement)
    with torch.no_grad():
        found = learner.adapt(partly_labelled(vectors)).summary
        for task in range(3):
            z, others = (encoder(each.inputs[task]) for each in vectors[:2])  # pyright: ignore
            labels = vectors.support.targets[task].argmax(-1)
            torch.testing.assert_close(found[task], refined(learner, z, labels, others))
    plain = ProtoNet(encoder).adapt(vectors.support).summary
    assert (found - plain).abs().max() > 1e-3


@pytest.mark.parametrize("refinement", REFINEMENTS)
def test_without_unlabelled_examples_it_is_a_prototypical_network(
    refinement: str, encoder: nn.Module, vectors: Episodes
):
    learner = built(encoder, refinement, num_refinements=3)
    found = learner.adapt(vectors.support).summary
    torch.testing.assert_close(found, ProtoNet(encoder).adapt(vectors.support).summary)
    loss = learner(vectors)
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in learner.parameters())


@pytest.mark.parametrize("refinement", REFINEMENTS)
def test_its_own_parameters_are_learned(refinement: str, encoder: nn.Module, vectors: Episodes):
    learner = built(encoder, refinement)
    learner(vectors._replace(support=partly_labelled(vectors))).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in learner.parameters())


def test_distractors_are_left_out(encoder: nn.Module):
    """What lies near zero, far from both classes, draws no prototype."""
    inputs = torch.tensor([[[4.0, 0], [0, 4], [0.1, 0.1], [-0.2, 0.1]]], dtype=torch.float64)
    targets = torch.tensor([[[1.0, 0], [0, 1], [0, 0], [0, 0]]], dtype=torch.float64)
    moved = {}
    for refinement in ("soft", "distractors"):
        learner = SemiSupervisedProtoNet(nn.Identity(), refinement=refinement).double()  # pyright: ignore
        if refinement == "distractors":
            learner.log_radius.data.fill_(0.0)
        summary = learner.adapt(Examples(inputs, targets)).summary
        moved[refinement] = (summary - inputs[:, :2]).norm(dim=-1).max().item()
    assert moved["distractors"] < 0.01 < 1 < moved["soft"]


def test_masked_rows_are_not_unlabelled_examples(encoder: nn.Module, vectors: Episodes):
    inputs, targets, _ = partly_labelled(vectors)
    assert isinstance(inputs, Tensor)
    mask = torch.ones(inputs.shape[:2], dtype=torch.bool)
    mask[:, -2:] = False
    for refinement in REFINEMENTS:
        learner = built(encoder, refinement, num_refinements=2)
        found = learner.adapt(Examples(inputs, targets, mask)).summary
        expected = learner.adapt(Examples(inputs[:, :-2], targets[:, :-2])).summary
        torch.testing.assert_close(found, expected)


def test_without_unlabelled_examples_wide_embeddings_stay_finite():
    torch.manual_seed(0)
    support = Examples(torch.randn(2, 5, 64), torch.eye(5).expand(2, 5, 5))
    learner = SemiSupervisedProtoNet(nn.Identity(), refinement="masked")
    torch.testing.assert_close(learner.adapt(support).summary, support.inputs)


@pytest.mark.parametrize("refinement", ["soft", "distractors"])
def test_the_gradient_is_exact(refinement: str, encoder: nn.Module, vectors: Episodes):
    learner = built(encoder, refinement, num_refinements=2)
    episodes = vectors._replace(support=partly_labelled(vectors))
    assert meta_gradient_error(learner, episodes) < 1e-6
