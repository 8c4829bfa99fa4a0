"""Reptile against slow loops on PyTorch's own layers and optimizers."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.backbones.conv4 import Conv4
from kshot.episodes import Episodes, Examples
from kshot.learners import task_map
from kshot.learners.optimization import fast_weights
from kshot.learners.optimization.reptile import Reptile
from kshot.learners.optimization.update_rules import SGD


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def where_steps_lead(
    start: nn.Module, optimizer: type, inputs: Tensor, labels: Tensor, steps: int, batch: int, **how
) -> list[Tensor]:
    """The parameters after some steps on minibatches that go round the examples."""
    tuned = copy.deepcopy(start)
    descent = optimizer(tuned.parameters(), **how)
    for step in range(steps):
        rows = [(step * batch + place) % len(labels) for place in range(batch)]
        descent.zero_grad()
        F.cross_entropy(tuned(inputs[rows]), labels[rows]).backward()
        descent.step()
    return [value.detach() for value in tuned.parameters()]


def test_the_meta_gradient_points_away_from_where_the_steps_lead(episodes: Episodes):
    true_labels = episodes.support.targets.argmax(-1)
    learner = Reptile(net(), inner_lr=0.1, num_inner_steps=4, inner_batch_size=5).train()
    inputs = torch.cat([episodes.support.inputs, episodes.query.inputs], 1)
    labels = torch.cat([true_labels, true_labels], 1)
    ends = [
        where_steps_lead(
            learner.net, torch.optim.Adam, x, y, steps=4, batch=5, lr=0.1, betas=(0.0, 0.999)
        )
        for x, y in zip(inputs, labels, strict=True)
    ]
    learner(episodes).backward()
    for parameter, *leads in zip(learner.net.parameters(), *ends, strict=True):
        expected = parameter.detach() - torch.stack(leads).mean(0)
        torch.testing.assert_close(parameter.grad, expected)


def test_one_step_is_joint_training_at_the_inner_rate(episodes: Episodes):
    true_labels = episodes.support.targets.argmax(-1)
    learner = Reptile(net(), num_inner_steps=1, inner_batch_size=0, rule=SGD(0.3)).train()
    learner(episodes).backward()
    inputs = torch.cat([episodes.support.inputs, episodes.query.inputs], 1).flatten(0, 1)
    joint = copy.deepcopy(learner.net)
    F.cross_entropy(joint(inputs), torch.cat([true_labels, true_labels], 1).flatten()).backward()
    for ours, theirs in zip(learner.net.parameters(), joint.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, 0.3 * theirs.grad)


def test_training_and_evaluation_have_steps_and_minibatches_of_their_own(episodes: Episodes):
    true_labels = episodes.support.targets.argmax(-1)
    learner = Reptile(
        net(), rule=SGD(0.2), num_inner_steps=2, num_test_steps=5, test_batch_size=4
    ).eval()
    adapted = learner.adapt(episodes.support).params
    for task in range(2):
        expected = where_steps_lead(
            learner.net,
            torch.optim.SGD,
            episodes.support.inputs[task],
            true_labels[task],
            steps=5,
            batch=4,
            lr=0.2,
        )
        for ours, theirs in zip(adapted.values(), expected, strict=True):
            torch.testing.assert_close(ours[task], theirs)


def test_a_step_of_gradient_descent_on_the_meta_loss_is_the_papers_update(episodes: Episodes):
    """theta + epsilon (mean of theta_k - theta): with epsilon 1 the mean itself, serial or not."""
    true_labels = episodes.support.targets.argmax(-1)
    learner = Reptile(net(), rule=SGD(0.2), num_inner_steps=3, inner_batch_size=0).train()
    one_task = Episodes(*(Examples(*(x[:1] for x in part[:2])) for part in episodes[:2]))
    inputs = torch.cat([one_task.support.inputs, one_task.query.inputs], 1)[0]
    labels = torch.cat([true_labels, true_labels], 1)[0]
    end = where_steps_lead(
        learner.net, torch.optim.SGD, inputs, labels, steps=3, batch=len(labels), lr=0.2
    )
    outer = torch.optim.SGD(learner.parameters(), lr=1.0)
    learner(one_task).backward()
    outer.step()
    for ours, theirs in zip(learner.net.parameters(), end, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_move_is_the_sum_of_the_slopes_on_the_way(episodes: Episodes):
    """g_Reptile = (theta - theta_k) / lr = g_1 + ... + g_k, exactly, by gradient descent."""
    true_labels = episodes.support.targets.argmax(-1)
    lr, steps = 0.05, 4
    learner = Reptile(net(), rule=SGD(lr), num_inner_steps=steps, inner_batch_size=3).train()
    inputs = torch.cat([episodes.support.inputs, episodes.query.inputs], 1)
    labels = torch.cat([true_labels, true_labels], 1)
    total = [torch.zeros_like(value) for value in learner.net.parameters()]
    for x, y in zip(inputs, labels, strict=True):
        tuned = copy.deepcopy(learner.net)
        for step in range(steps):
            rows = [(step * 3 + place) % len(y) for place in range(3)]
            loss = F.cross_entropy(tuned(x[rows]), y[rows])
            slopes = torch.autograd.grad(loss, list(tuned.parameters()))
            for value, slope, sum_ in zip(tuned.parameters(), slopes, total, strict=True):
                sum_ += slope / len(inputs)
                value.data -= lr * slope
    learner(episodes).backward()
    for ours, expected in zip(learner.net.parameters(), total, strict=True):
        torch.testing.assert_close(ours.grad, lr * expected)


def test_averages_carry_over_from_task_to_task_and_to_the_test(episodes: Episodes):
    """One torch optimizer for all tasks, whose state lives on while the parameters start again.

    The loss is summed, so that a test step on half as many examples is a shorter one.
    """
    true_labels = episodes.support.targets.argmax(-1)
    learner = Reptile(
        net(),
        inner_lr=0.1,
        carry_over=True,
        num_inner_steps=3,
        num_test_steps=2,
        inner_batch_size=0,
        test_batch_size=0,
    )
    tuned = copy.deepcopy(learner.net)
    adam = torch.optim.Adam(tuned.parameters(), lr=0.1, betas=(0.0, 0.999))

    def lead(inputs: Tensor, labels: Tensor, steps: int) -> list[Tensor]:
        tuned.load_state_dict(learner.net.state_dict())
        for _ in range(steps):
            adam.zero_grad()
            F.cross_entropy(tuned(inputs), labels, reduction="sum").backward()
            adam.step()
        return [value.detach().clone() for value in tuned.parameters()]

    for task in range(2):
        one = Episodes(*(Examples(*(x[[task]] for x in part[:2])) for part in episodes[:2]))
        inputs = torch.cat([one.support.inputs, one.query.inputs], 1)[0]
        ends = lead(inputs, true_labels[task].repeat(2), 3)
        learner.zero_grad()
        learner.train()(one).backward()
        for ours, end in zip(learner.net.parameters(), ends, strict=True):
            torch.testing.assert_close(ours.grad, ours.detach() - end)
    before = copy.deepcopy(learner.state_dict())
    adapted = learner.eval().adapt(one.support).params
    ends = lead(one.support.inputs[0], true_labels[1], 2)
    for ours, end in zip(adapted.values(), ends, strict=True):
        torch.testing.assert_close(ours[0], end)
    torch.testing.assert_close(learner.state_dict(), before)


def test_averages_are_those_of_the_inner_adam():
    with pytest.raises(ValueError, match="give no rule"):
        Reptile(net(), carry_over=True, rule=SGD(0.1))


def test_auto_goes_by_what_a_step_sees(monkeypatch: pytest.MonkeyPatch):
    chosen: list[str] = []

    def map_tasks(function: Any, *trees: Any, strategy: Any, chunk_size: Any) -> Any:
        chosen.append(strategy)
        return task_map.map_tasks(function, *trees, strategy=strategy, chunk_size=chunk_size)

    monkeypatch.setattr(fast_weights, "map_tasks", map_tasks)
    net = nn.Sequential(Conv4((1, 28, 28), strided=True), nn.Linear(256, 5))
    support = Examples(torch.zeros(1, 50, 1, 28, 28), torch.eye(5).repeat(1, 10, 1))
    for size in (10, 0):
        Reptile(net, num_inner_steps=1, inner_batch_size=size).train().adapt(support)
    assert chosen == ["vmap", "loop"]
