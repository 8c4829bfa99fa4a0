"""A compiled meta-gradient is the eager one, for every learner of the registry, or is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kshot.learners.registry import LEARNERS
from kshot.testing.comparison import double_copy, seeded, trainable
from kshot.training.compiled import CompiledMetaLoss

Make = Callable[..., Any]

# They move buffers; fine-tuning reads class numbers to check them.
REFUSED = {("maml_plus_plus", None), ("protonet", "running"), ("fine_tuning", None)}


@pytest.mark.parametrize(
    ("name", "backbone", "policy"),
    [
        *((name, "mlp", None) for name in LEARNERS),
        *(("maml", "conv4_strided", policy) for policy in ("batch", "running", "support")),
        ("protonet", "conv4_strided", "running"),
    ],
)
def test_the_graph_gives_the_same_loss_and_gradient(
    name: str,
    backbone: str,
    policy: str | None,
    make_learner: Make,
    make_episodes: Make,
    uncompiled: None,
):
    learner = make_learner(name, backbone, **({"batch_norm": policy} if policy else {})).train()
    learner, episodes = double_copy(learner, make_episodes(backbone))
    compiled = CompiledMetaLoss(learner)
    parameters = trainable(learner)
    if not parameters:
        pytest.skip("it has nothing to train")
    if (name, policy) in REFUSED:
        with pytest.raises(ValueError, match=r"while it trains|cannot be traced"):
            compiled(episodes)
        return
    _, others = double_copy(learner, make_episodes(backbone, seed=1))
    for each in (episodes, others):  # the second are computed by the graph of the first
        losses = [
            seeded(0, lambda loss=loss, each=each: loss(each)) for loss in (learner, compiled)
        ]
        torch.testing.assert_close(*losses)
        torch.testing.assert_close(
            *(torch.autograd.grad(loss, parameters, materialize_grads=True) for loss in losses)
        )
