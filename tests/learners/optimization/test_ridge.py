"""R2D2 against scikit-learn's ridge regression."""

import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from kshot.episodes import Examples, one_hot
from kshot.learners.optimization.ridge import R2D2
from kshot.losses import mean_squared_error

LABELS = torch.tensor([[0, 1, 2, 2, 1, 0], [1, 0, 2, 0, 1, 2]])


def draw(dim: int, seed: int = 0) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(2, 6, dim, generator=generator, dtype=torch.float64)
    return Examples(inputs, one_hot(LABELS, 3, torch.float64))


@pytest.mark.parametrize("dim", [3, 6, 20])
def test_the_head_is_the_solution_of_each_tasks_ridge_regression(dim: int):
    learner, support = R2D2(nn.Identity(), strength=0.7).double(), draw(dim)
    state = learner.adapt(support)
    assert isinstance(support.inputs, Tensor)
    for task in range(2):
        solved = Ridge(alpha=0.7, fit_intercept=False)
        solved.fit(support.inputs[task].numpy(), support.targets[task].numpy())
        expected = torch.from_numpy(solved.coef_.T)
        torch.testing.assert_close(state.summary[task].detach(), expected)


@pytest.mark.parametrize("dim", [3, 20])
def test_padding_and_unlabelled_rows_leave_the_solution_as_it_is(dim: int):
    learner, support = R2D2(nn.Identity()).double(), draw(dim)
    other = draw(dim, seed=1)
    assert isinstance(support.inputs, Tensor) and isinstance(other.inputs, Tensor)
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[:, 6] = False
    targets = torch.cat([support.targets, other.targets[:, :1], 0 * other.targets[:, :1]], 1)
    longer = Examples(torch.cat([support.inputs, other.inputs[:, :2]], 1), targets, mask)
    torch.testing.assert_close(learner.adapt(longer).summary, learner.adapt(support).summary)


def test_logits_are_scaled_and_shifted_and_values_are_not():
    support = draw(4)
    assert isinstance(support.inputs, Tensor)
    classifier = R2D2(nn.Identity(), scale=3.0).double()
    classifier.shift.data.fill_(0.5)
    regressor = R2D2(nn.Identity(), loss=mean_squared_error).double()
    state = regressor.adapt(support)
    values = regressor.predict(state, support.inputs)
    torch.testing.assert_close(values, support.inputs @ state.summary)
    logits = classifier.predict(classifier.adapt(support), support.inputs)
    torch.testing.assert_close(logits, 3 * values + 0.5)


def test_strength_stays_positive_and_is_learned():
    learner, support = R2D2(nn.Identity()).double(), draw(4)
    state = learner.adapt(support)
    loss = learner.loss(learner.predict(state, support.inputs), support.targets).mean()
    loss.backward()
    assert learner.log_strength.grad is not None and learner.log_strength.grad != 0
