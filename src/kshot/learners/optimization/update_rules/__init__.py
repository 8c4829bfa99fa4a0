"""Update rules: how inner-loop gradients move parameters, one file a rule."""

from kshot.learners.optimization.update_rules.base import Params, RuleState, UpdateRule
from kshot.learners.optimization.update_rules.sgd import SGD

__all__ = ["SGD", "UPDATE_RULES", "Params", "RuleState", "UpdateRule"]

UPDATE_RULES: dict[str, type[UpdateRule]] = {"sgd": SGD}
"""Every update rule, by name."""
