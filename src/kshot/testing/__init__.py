"""Contract tests that any learner can be put through: `check_learner(learner, episodes)`.

Each check works on a copy of the learner in float64, leaves learner and episodes alone, and raises
an AssertionError that says which part of the contract of `MetaLearner` was broken.
"""

from collections.abc import Callable
from typing import Literal

from kshot.episodes import Episodes
from kshot.learner import MetaLearner
from kshot.testing.adaptation import (
    check_no_grad,
    check_online,
    check_other_sizes,
    check_predictions,
    check_purity,
    check_saving,
    check_state,
    check_task_independence,
)
from kshot.testing.training import (
    check_determinism,
    check_forward,
    check_learning,
    check_meta_gradient,
    check_parameters,
    check_strategies,
    meta_gradient_error,
)

__all__ = [
    "CHECKS",
    "check_determinism",
    "check_forward",
    "check_learner",
    "check_learning",
    "check_meta_gradient",
    "check_no_grad",
    "check_online",
    "check_other_sizes",
    "check_parameters",
    "check_predictions",
    "check_purity",
    "check_saving",
    "check_state",
    "check_strategies",
    "check_task_independence",
    "meta_gradient_error",
]


def check_learner(
    learner: MetaLearner,
    episodes: Episodes,
    *,
    meta_gradient: Literal["exact", "first_order", "implicit", "surrogate", "none"] = "exact",
) -> None:
    """Check that a learner keeps every part of the contract of `MetaLearner`.

    Args:
        learner: the learner, preferably on a narrow network: each check computes it several times.
        episodes: two or more small tasks that it could be trained on.
        meta_gradient: what the gradient of its meta-loss is, as in its row of the registry. Only
            "exact" is compared with central differences; the others need an oracle of their own.

    Raises:
        AssertionError: naming the part of the contract that was broken.

    Example:
        >>> import torch
        >>> from kshot.episodes import Examples
        >>> from kshot.learners.metric.prototypical import ProtoNet
        >>> examples = Examples(torch.randn(2, 6, 4), torch.eye(3).repeat(2, 2, 1))
        >>> check_learner(ProtoNet(torch.nn.Linear(4, 8)), Episodes(examples, examples))
    """
    for check in CHECKS:
        check(learner, episodes)
    check_learning(learner, episodes, surrogate=meta_gradient == "surrogate")
    if meta_gradient == "exact":
        check_meta_gradient(learner, episodes)


CHECKS: tuple[Callable[[MetaLearner, Episodes], None], ...] = (
    check_predictions,
    check_state,
    check_purity,
    check_task_independence,
    check_no_grad,
    check_online,
    check_saving,
    check_other_sizes,
    check_forward,
    check_parameters,
    check_strategies,
    check_determinism,
)
"""The checks that are the same for every learner; the others depend on its meta-gradient."""
