"""Update rules: how inner-loop gradients move parameters, one file a rule."""

from collections.abc import Callable

from kshot.learners.optimization.update_rules.adam import Adam, CarriedAdam
from kshot.learners.optimization.update_rules.base import Params, RuleState, UpdateRule
from kshot.learners.optimization.update_rules.coordinatewise import CoordinatewiseRule
from kshot.learners.optimization.update_rules.gated import GatedRule
from kshot.learners.optimization.update_rules.learned_optimizer import LearnedOptimizer
from kshot.learners.optimization.update_rules.learned_rates import LearnedRates
from kshot.learners.optimization.update_rules.momentum import Momentum
from kshot.learners.optimization.update_rules.sgd import SGD
from kshot.learners.optimization.update_rules.step_rates import StepRates
from kshot.learners.optimization.update_rules.torch_optimizer import torch_optimizer
from kshot.learners.preprocessing import preprocess

__all__ = [
    "SGD",
    "UPDATE_RULES",
    "Adam",
    "CarriedAdam",
    "CoordinatewiseRule",
    "GatedRule",
    "LearnedOptimizer",
    "LearnedRates",
    "Momentum",
    "Params",
    "RuleState",
    "StepRates",
    "UpdateRule",
    "preprocess",
    "torch_optimizer",
]

UPDATE_RULES: dict[str, Callable[[float], UpdateRule]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "adam": Adam,
}
"""The update rules without meta-parameters, by name, made from a learning rate."""
