"""A compiled meta-gradient is the eager one, for every learner of the registry, or is refused."""

import copy
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from kshot.learners.registry import LEARNERS
from kshot.testing.comparison import double_copy, seeded, trainable
from kshot.training.compiled import CompiledMetaLoss, CompiledSteps, compiled

Make = Callable[..., Any]

# Pre-training reads class numbers to check them, a relation network which classes there are.
PRE_TRAINED = ("fine_tuning", "simple_shot", "imprinted", "baseline_plus_plus")
EMBEDDED = ("contrastive_pairs", "triplet", "sphereface", "cosface", "arcface")
REFUSED = {(name, None) for name in (*PRE_TRAINED, *EMBEDDED, "relation")}
# Where no example's output depends on another's, they embed the examples that there are.
REFUSED_MASKED = {
    *((name, None) for name in ("contrastive", "protonet", "anil", "r2d2", "siamese")),
    *((name, None) for name in ("matching", "matching_fce", "gaussian_protonet")),
    *((name, None) for name in ("snail", "metanet")),
    ("semi_supervised_protonet", None),
    *((name, None) for name in ("lstm", "gru", "ntm", "mann")),
    ("protonet", "running"),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("name", "backbone", "policy"),
    [
        *((name, "mlp", None) for name, row in LEARNERS.items() if row.meta_gradient != "none"),
        *(("maml", "conv4_strided", policy) for policy in ("batch", "running", "support")),
        ("protonet", "conv4_strided", "running"),
        ("protonet", "conv4_strided", "batch"),
    ],
)
def test_the_graph_gives_the_same_loss_and_gradient(
    name: str,
    backbone: str,
    policy: str | None,
    masked: bool,
    make_learner: Make,
    make_episodes: Make,
    padded: Make,
    uncompiled: None,
):
    learner = make_learner(name, backbone, **({"batch_norm": policy} if policy else {})).train()
    pad = padded if masked else lambda episodes: episodes
    learner, episodes = double_copy(learner, pad(make_episodes(backbone)))
    compiled, eager = CompiledMetaLoss(learner), copy.deepcopy(learner)
    if (name, policy) in (REFUSED | REFUSED_MASKED if masked else REFUSED):
        with pytest.raises(ValueError, match="cannot be traced"):
            compiled(episodes)
        torch.testing.assert_close(learner.state_dict(), eager.state_dict())
        return
    _, others = double_copy(learner, pad(make_episodes(backbone, seed=1)))
    for each in (episodes, others):  # the second are computed by the graph of the first
        losses = [seeded(0, lambda loss=loss, each=each: loss(each)) for loss in (eager, compiled)]
        torch.testing.assert_close(*losses)
        grads = [
            torch.autograd.grad(loss, trainable(each), allow_unused=True)
            for loss, each in zip(losses, (eager, learner), strict=True)
        ]
        torch.testing.assert_close(*grads)
        torch.testing.assert_close(learner.state_dict(), eager.state_dict())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["lstm", "gru", "ntm", "mann"])
def test_compiled_steps_give_the_same_loss_and_gradient(
    name: str,
    masked: bool,
    make_learner: Make,
    make_episodes: Make,
    padded: Make,
    monkeypatch: pytest.MonkeyPatch,
):
    steps: list[Mock] = []

    def watched(step: Make, **options: Any) -> Mock:
        steps.append(Mock(side_effect=step))
        return steps[-1]

    monkeypatch.setattr(torch, "compile", watched)
    learner = make_learner(name, "mlp").train()
    episodes = make_episodes("mlp")
    learner, episodes = double_copy(learner, padded(episodes) if masked else episodes)
    eager, by_steps = copy.deepcopy(learner), compiled(learner)
    assert isinstance(by_steps, CompiledSteps)
    losses = [seeded(0, lambda loss=loss: loss(episodes)) for loss in (eager, by_steps)]
    (step,) = steps
    taken = step.call_count
    assert taken == episodes.support.targets.shape[1] + 1, "the queries are one step"
    torch.testing.assert_close(*losses, rtol=0, atol=0)
    grads = [
        torch.autograd.grad(loss, trainable(each), allow_unused=True)
        for loss, each in zip(losses, (eager, learner), strict=True)
    ]
    torch.testing.assert_close(*grads, rtol=0, atol=0)
    learner(episodes)
    assert step.call_count == taken, "by itself it is as it was"


@pytest.mark.parametrize("name", ["protonet", "r2d2", "maml"])
def test_under_autocast_it_is_the_same(
    name: str, make_learner: Make, make_episodes: Make, uncompiled: None
):
    learner = make_learner(name, "mlp").train().float()
    episodes = make_episodes("mlp").to("cpu", torch.float32)
    compiled = CompiledMetaLoss(learner)
    results = []
    for loss in (learner, compiled):
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(episodes)
        results.append((value, *torch.autograd.grad(value, trainable(learner), allow_unused=True)))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
    assert abs(results[0][0] - learner(episodes)) > 1e-6, "bfloat16 was used"
