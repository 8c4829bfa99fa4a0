"""Meta-SGD: where its rates are all one number it is MAML, and each of them is learned."""

import torch
from torch import nn

from kshot.backbones.heads import WithHead
from kshot.backbones.mlp import MLP
from kshot.episodes import Episodes
from kshot.learners.optimization.maml import MAML
from kshot.learners.optimization.meta_sgd import MetaSGD
from kshot.learners.optimization.update_rules import LearnedRates


def net() -> nn.Module:
    torch.manual_seed(0)
    return WithHead(MLP((4,), widths=(6, 5), activation="softplus"), 3).double()


def test_with_one_rate_for_all_it_is_maml(episodes: Episodes):
    maml = MAML(net(), inner_lr=0.3, num_inner_steps=2)
    meta_sgd = MetaSGD(net(), lowest_rate=0.3, highest_rate=0.3, num_inner_steps=2)
    losses = maml(episodes), meta_sgd(episodes)
    torch.testing.assert_close(*losses)
    gradients = [
        torch.autograd.grad(loss, list(learner.net.parameters()))
        for loss, learner in zip(losses, (maml, meta_sgd), strict=True)
    ]
    torch.testing.assert_close(*gradients)


def test_its_rates_are_meta_parameters_of_either_sign(episodes: Episodes):
    learner = MetaSGD(net(), lowest_rate=-0.1, highest_rate=0.1)
    assert isinstance(learner.rule, LearnedRates)
    rates = torch.cat([rate.flatten() for rate in learner.rule.rates])
    assert rates.min() < 0 < rates.max() and rates.numel() == sum(
        value.numel() for value in learner.net.parameters()
    )
    learner(episodes).backward()
    assert all(rate.grad is not None and rate.grad.any() for rate in learner.rule.rates)


def test_a_frozen_parameter_has_no_rate_and_does_not_move(episodes: Episodes):
    network = net()
    frozen = network.get_parameter("head.bias").requires_grad_(False)
    learner = MetaSGD(network)
    assert isinstance(learner.rule, LearnedRates) and "head.bias" not in learner.rule.names
    assert "head.bias" not in learner.adapt(episodes.support).params
    assert not frozen.requires_grad
