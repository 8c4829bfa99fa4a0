"""What is unrolled: every problem is alone, and moves as in the inner loop."""

import pytest
import torch
from torch import Tensor

from kshot.learners.optimization.inner_loop import inner_loop
from kshot.learners.optimization.update_rules import (
    SGD,
    Adam,
    GatedRule,
    LearnedOptimizer,
    Params,
    UpdateRule,
)
from kshot.training.unroll import OptimizationProblem, descent, losses_along


@pytest.mark.parametrize("rule", [SGD(0.05), Adam(0.1), GatedRule(), LearnedOptimizer()])
def test_problems_at_once_are_each_alone_in_the_inner_loop(
    rule: UpdateRule, bowls: OptimizationProblem
):
    problem, rule = bowls, rule.double()
    losses = losses_along(descent(problem, rule), 5)
    for number in range(3):

        def loss(params: Params, step: int, number: int = number) -> Tensor:
            everything = {
                "theta": torch.zeros(3, 4)
                .double()
                .index_put((torch.tensor([number]),), params["theta"].unsqueeze(0))
            }
            return problem.loss(everything, step)[number]

        start = {"theta": problem.init["theta"][number]}
        trajectory = list(inner_loop(loss, start, rule, 5, first_order=True))
        expected = torch.stack([loss(p, step) for step, p in enumerate(trajectory)][1:])
        torch.testing.assert_close(losses[:, number], expected.detach())
