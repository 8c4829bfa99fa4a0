"""The LSTM meta-learner against slow loops, and against MAML where its gates are constants."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.backbones.conv4 import Conv4
from kshot.backbones.heads import WithHead
from kshot.episodes import Episodes, Examples, map_tensors, one_hot
from kshot.learners.optimization.lstm_meta_learner import LSTMMetaLearner
from kshot.learners.optimization.maml import MAML
from kshot.learners.optimization.update_rules import preprocess
from kshot.testing import check_meta_gradient


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Softplus(), nn.Linear(5, 3)).double()


def make(**options: Any) -> LSTMMetaLearner:
    """A learner whose rule's weights all matter."""
    learner = LSTMMetaLearner(net(), num_inner_steps=3, hidden=4, **options).double()
    for name, parameter in learner.rule.named_parameters():
        if name != "from_features.bias":
            nn.init.normal_(parameter, std=0.3)
    return learner


def gradient(learner: LSTMMetaLearner, episodes: Episodes) -> list[Tensor]:
    return list(torch.autograd.grad(learner.train()(episodes), list(learner.parameters())))


@pytest.mark.parametrize("paper", [False, True])
def test_the_meta_gradient_takes_what_the_rule_reads_as_constant(episodes: Episodes, paper: bool):
    """By a loop over tasks in which the cell is written out, and losses and slopes are detached."""
    learner = make(feedback_pre_sigmoid=not paper)
    rule, cell = learner.rule, learner.rule.memory[0]
    names = [name for name, _ in learner.net.named_parameters()]
    total = torch.zeros((), dtype=torch.float64)
    for task in range(2):
        support, query, _ = map_tensors(lambda x, task=task: x[task], episodes)
        theta = [p.flatten() for p in learner.net.parameters()]
        shapes = [p.shape for p in learner.net.parameters()]
        count = sum(map(len, theta))
        theta = torch.cat(theta)
        h = c = torch.zeros(count, 4, dtype=torch.float64)
        forget = enter = torch.zeros(count, dtype=torch.float64)

        def loss(
            values: Tensor, examples: Examples, shapes: Any = shapes, count: int = count
        ) -> Tensor:
            parts = values.split([shape.numel() for shape in shapes])
            params = {
                n: part.view(shape) for n, part, shape in zip(names, parts, shapes, strict=True)
            }
            logits = torch.func.functional_call(learner.net, params, (examples.inputs,))
            return F.cross_entropy(logits, examples.targets)

        for _ in range(3):
            there = theta.detach().requires_grad_()
            value = loss(there, support)
            (slope,) = torch.autograd.grad(value, there)
            told = torch.cat([preprocess(slope), preprocess(value.detach()).expand(count, 2)], 1)
            i, f, o, u = (torch.cat([told, h], 1) @ cell.weight.T + cell.bias).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * (u / 2).tanh()
            h = o.sigmoid() * c.tanh()
            before = [gate.sigmoid() if paper else gate for gate in (forget, enter)]
            forget, enter = (
                h @ rule.from_features.weight[k]
                + rule.from_features.bias[k]
                + theta * rule.from_value[k]
                + before[k] * rule.from_gate[k]
                for k in range(2)
            )
            theta = forget.sigmoid() * theta - enter.sigmoid() * slope
        total = total + loss(theta, query) / 2
    expected = torch.autograd.grad(total, list(learner.parameters()))
    torch.testing.assert_close(learner(episodes), total)
    torch.testing.assert_close(gradient(learner, episodes), list(expected))


def test_with_constant_gates_it_is_maml_without_second_derivatives(episodes: Episodes):
    learner, maml = make(), MAML(net(), inner_lr=0.1, num_inner_steps=3, first_order=True)
    for parameter in learner.rule.parameters():
        nn.init.zeros_(parameter)
    bias = torch.tensor([50.0, torch.logit(torch.tensor(0.1))])
    learner.rule.from_features.bias.data.copy_(bias)
    adapted, expected = learner.adapt(episodes.support), maml.adapt(episodes.support)
    torch.testing.assert_close(adapted.params, expected.params)
    learner.rule.requires_grad_(False)
    for loss in (learner(episodes), maml(episodes)):
        loss.backward()
    for ours, theirs in zip(learner.net.parameters(), maml.net.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_with_second_derivatives_the_gradient_is_exact(episodes: Episodes):
    check_meta_gradient(make(first_order=False), episodes)
    with pytest.raises(AssertionError, match="central differences"):
        check_meta_gradient(make(), episodes)


def test_steps_computed_again_give_the_same_gradient(episodes: Episodes):
    torch.testing.assert_close(
        gradient(make(gradient_checkpointing=True), episodes), gradient(make(), episodes)
    )


def test_minibatches_go_round_the_support_set(episodes: Episodes):
    """Three steps of two examples see all six; the rule reads the losses of its own two."""
    learner = make(inner_batch_size=2)
    whole = learner.adapt(episodes.support).params
    for task in range(2):
        params = {name: p.detach() for name, p in learner.net.named_parameters()}
        state = learner.rule.init(params)
        for step in range(3):
            there = {name: value.detach().requires_grad_() for name, value in params.items()}
            rows = slice(2 * step, 2 * step + 2)
            logits = torch.func.functional_call(
                learner.net, there, (episodes.support.inputs[task, rows],)
            )
            present = episodes.support.targets[task].sum(0) > 0
            assert present.all()
            loss = F.cross_entropy(logits, episodes.support.targets[task, rows])
            slopes = dict(zip(there, torch.autograd.grad(loss, list(there.values())), strict=True))
            params, state = learner.rule.step(params, slopes, state, loss=loss.detach())
        torch.testing.assert_close({k: v[task] for k, v in whole.items()}, params)


def test_an_initialization_that_is_not_learned_gets_no_gradient(episodes: Episodes):
    learner = make(learned_initialization=False)
    learner(episodes).backward()
    assert all(p.grad is None for p in learner.net.parameters())
    assert all(p.grad is not None for p in learner.rule.parameters())


def test_statistics_are_the_querys_in_training_and_the_supports_in_evaluation():
    torch.manual_seed(0)
    encoder = Conv4((1, 16, 16), hidden=3)
    learner = LSTMMetaLearner(WithHead(encoder, 3), num_inner_steps=2).double()
    targets = one_hot(torch.tensor([[0, 1, 2]]), 3, torch.float64)
    support = Examples(torch.rand(1, 3, 1, 16, 16, dtype=torch.float64), targets)
    query = torch.rand(1, 4, 1, 16, 16, dtype=torch.float64)
    for training, policy in ((True, "batch"), (False, "support")):
        other = MAML(learner.net, batch_norm=policy)  # pyright: ignore[reportArgumentType]
        state = learner.train(training).adapt(support)
        beside = state._replace(
            support_inputs=support.inputs if policy == "support" else None, support_mask=None
        )
        torch.testing.assert_close(learner.predict(state, query), other.predict(beside, query))
    assert not learner.transductive


def test_gates_of_every_step(episodes: Episodes):
    learner = make().eval()
    gates = learner.gates(episodes.support)
    shapes = {name: (2, 3, 2, *p.shape) for name, p in learner.net.named_parameters()}
    assert {name: tuple(value.shape) for name, value in gates.items()} == shapes
    # The first step's input gate, from where it led: theta' = f theta - i grad.
    learner.num_test_steps = 1
    first = learner.adapt(episodes.support).params
    for task in range(2):
        params = {n: p.detach().requires_grad_() for n, p in learner.net.named_parameters()}
        logits = torch.func.functional_call(learner.net, params, (episodes.support.inputs[task],))
        loss = F.cross_entropy(logits, episodes.support.targets[task])
        slopes = torch.autograd.grad(loss, list(params.values()))
        for (name, value), slope in zip(params.items(), slopes, strict=True):
            forget, enter = gates[name][task, 0]
            torch.testing.assert_close(first[name][task], forget * value - enter * slope)
