"""Distances and set statistics against the obvious loops."""

import pytest
import torch
import torch.nn.functional as F

from kshot.learners.metric.distances import (
    class_maxima,
    class_means,
    cosines,
    scaled_squared_distances,
    squared_distances,
    weighted_city_block,
)


@pytest.fixture
def points() -> torch.Tensor:
    return torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def others() -> torch.Tensor:
    return torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_distances_are_squared_euclidean(points, others):
    expected = torch.cdist(points, others).square()
    torch.testing.assert_close(squared_distances(points, others), expected)


def test_each_center_may_have_scales_of_its_own(points, others):
    scales = torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(2)).double()
    differences = points.unsqueeze(2) - others.unsqueeze(1)
    expected = (scales.unsqueeze(1) * differences.square()).sum(-1)
    torch.testing.assert_close(scaled_squared_distances(points, others, scales), expected)


def test_cosines_are_those_of_angles(points, others):
    expected = F.cosine_similarity(points.unsqueeze(2), others.unsqueeze(1), dim=-1)
    torch.testing.assert_close(cosines(points, others), expected)
    assert cosines(points, torch.zeros_like(others)).abs().max() == 0


def test_weights_of_the_city_block_may_be_of_either_sign(points, others):
    weights = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64, requires_grad=True)
    points.requires_grad_()
    expected = ((points.unsqueeze(2) - others.unsqueeze(1)).abs() * weights).sum(-1)
    found = weighted_city_block(points, others, weights)
    torch.testing.assert_close(found, expected)
    along = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(2)).double()
    gradients = (
        torch.autograd.grad((x * along).sum(), (points, weights)) for x in (found, expected)
    )
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_largest_similarity_of_a_class():
    similarities = torch.tensor([[[0.1, 0.7, 0.3], [0.5, -0.2, -0.9]]])
    targets = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [1, 0, 0]]])
    found = class_maxima(similarities, targets)
    assert found[..., :2].tolist() == [
        [[pytest.approx(0.3), pytest.approx(0.7)], [0.5, pytest.approx(-0.2)]]
    ]
    assert found.isfinite().all() and (found[..., 2] < -1e30).all(), "a class without examples"


def test_soft_labels_weigh_an_example():
    embeddings = torch.tensor([[[0.0], [4.0]]])
    targets = torch.tensor([[[1.0, 0.0], [0.25, 0.75]]])
    means = class_means(embeddings, targets)
    torch.testing.assert_close(means, torch.tensor([[[0.8], [4.0]]]))


def test_a_class_without_examples_has_mean_zero_and_finite_gradients():
    embeddings = torch.ones(1, 2, 3, requires_grad=True)
    means = class_means(embeddings, torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    means.sum().backward()
    assert means[0].tolist() == [[1, 1, 1], [0, 0, 0]]
    assert embeddings.grad is not None and embeddings.grad.isfinite().all()


def test_masked_rows_are_no_examples_whatever_their_target():
    embeddings = torch.tensor([[[0.0], [4.0]]])
    targets = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    means = class_means(embeddings, targets, torch.tensor([[True, False]]))
    assert means.tolist() == [[[0.0], [0.0]]]
