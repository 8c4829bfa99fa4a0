"""Every learner of the registry keeps the contract, on every network and BatchNorm policy."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kshot.backbones.registry import build_backbone
from kshot.config import Choice
from kshot.episodes import Episodes
from kshot.learner import MetaLearner
from kshot.learners.registry import LEARNERS, TaskShape
from kshot.options import option_types, unwrapped
from kshot.testing import (
    CHECKS,
    check_determinism,
    check_forward,
    check_learner,
    check_learning,
    check_meta_gradient,
    check_saving,
    meta_gradient_error,
)

Make = Callable[..., Any]

ROWS = [(name, kind) for name, row in LEARNERS.items() for kind in row.kinds]
POLICIES = ("running", "batch", "support", "support_and_query")
NETWORKS = [
    ("mlp", None, False),
    ("mlp", None, True),
    ("conv4", None, False),
    *(("conv4_strided", policy, True) for policy in POLICIES),
]


def policies_of(name: str) -> tuple[str, ...]:
    return unwrapped(LEARNERS[name].constructor).batch_norm_policies  # pyright: ignore


# What neither padding nor a BatchNorm policy can break is checked without them.
ONCE = {check_determinism, check_forward, check_learning, check_saving}


def applies(
    check: Callable[..., None], name: str, kind: str, backbone: str, policy: Any, masked: bool
) -> bool:
    """Regression is on vectors, and not every learner has every policy."""
    if (kind == "regression" and backbone != "mlp") or (check in ONCE and masked):
        return False
    return policy in (None, *policies_of(name))


@pytest.mark.parametrize(
    ("check", "name", "kind", "backbone", "policy", "masked"),
    [
        pytest.param(check, *row, *network, id="-".join(map(str, (check.__name__, *row, *network))))
        for row in ROWS
        for network in NETWORKS
        for check in (*CHECKS, check_learning)
        if applies(check, *row, *network)
    ],
)
def test_contract(
    check: Callable[[MetaLearner, Episodes], None],
    name: str,
    kind: str,
    backbone: str,
    policy: str | None,
    masked: bool,
    make_learner: Make,
    make_episodes: Make,
    padded: Make,
):
    options = {} if policy is None else {"batch_norm": policy}
    learner = make_learner(name, backbone, kind, **options)
    episodes = make_episodes(backbone, kind)
    surrogate = LEARNERS[name].meta_gradient == "surrogate"
    options = {"surrogate": surrogate} if check is check_learning else {}
    check(learner, padded(episodes) if masked else episodes, **options)


def test_one_call_runs_them_all(make_learner: Make, make_episodes: Make):
    check_learner(make_learner("protonet", "mlp"), make_episodes())
    first_order = make_learner("fomaml", "mlp")
    check_learner(first_order, make_episodes(), meta_gradient="first_order")
    with pytest.raises(AssertionError, match="central differences"):
        check_learner(first_order, make_episodes())


EXACT = [(n, k) for n, k in ROWS if LEARNERS[n].meta_gradient == "exact"]
LOOPED = [name for name, row in LEARNERS.items() if "strategy" in option_types(row.constructor)]


def gradient_cases(rows: list[tuple[str, str]]) -> list[tuple[Any, ...]]:
    """Most of the table that benchmarks/meta_gradients.py computes in full."""
    cases = []
    for name, kind in rows:
        looped = ("vmap", "loop") if name in LOOPED else (None,)
        for strategy in looped:
            cases += [(name, kind, "mlp", strategy, None, masked) for masked in (False, True)]
        if kind == "regression":
            continue
        for policy in policies_of(name):
            if policy not in POLICIES:
                continue
            cases += [(name, kind, "conv4_strided", looped[0], policy, m) for m in (False, True)]
            cases.append((name, kind, "conv4", looped[0], policy, False))
            cases += [(name, kind, "conv4_strided", other, policy, True) for other in looped[1:]]
        policy = "batch" if "batch" in policies_of(name) else "running"
        cases.append((name, kind, "conv4", looped[-1], policy, True))
        cases.append((name, kind, "resnet12", looped[0], policy, False))
    return cases


def built(case: tuple[Any, ...], learners: Make, episodes: Make, padded: Make) -> tuple[Any, Any]:
    name, kind, backbone, strategy, policy, masked = case
    options = {"strategy": strategy, "batch_norm": policy}
    options = {key: value for key, value in options.items() if value is not None}
    drawn = episodes(backbone, kind)
    return learners(name, backbone, kind, **options), padded(drawn) if masked else drawn


@pytest.mark.usefixtures("smooth")
@pytest.mark.parametrize(
    "case", gradient_cases(EXACT), ids=lambda case: "-".join(str(part) for part in case)
)
def test_meta_gradient_is_exact(
    case: tuple[Any, ...], make_learner: Make, make_episodes: Make, padded: Make
):
    learner, episodes = built(case, make_learner, make_episodes, padded)
    check_meta_gradient(learner, episodes)


@pytest.mark.usefixtures("smooth")
@pytest.mark.parametrize(
    "case",
    gradient_cases([("fomaml", "classification"), ("fomaml", "regression")]),
    ids=lambda case: "-".join(str(part) for part in case),
)
def test_meta_gradient_of_fomaml_is_that_of_the_query_loss_where_steps_lead(
    case: tuple[Any, ...],
    make_learner: Make,
    make_episodes: Make,
    padded: Make,
    first_order_gradient: Callable[[Any, Episodes], list[torch.Tensor]],
):
    learner, episodes = built(case, make_learner, make_episodes, padded)
    learner.train().meta_loss(episodes).backward()
    expected = first_order_gradient(learner, episodes)
    scale = max(gradient.abs().max() for gradient in expected)
    for parameter, gradient in zip(learner.net.parameters(), expected, strict=True):
        assert parameter.grad is not None
        assert (parameter.grad - gradient).abs().max() < 1e-10 * scale


def test_a_first_order_gradient_is_not_the_gradient(make_learner: Make, make_episodes: Make):
    """What tells an exact meta-gradient from others does tell them apart."""
    assert meta_gradient_error(make_learner("fomaml", "mlp"), make_episodes()) > 1e-2
    assert meta_gradient_error(make_learner("maml", "mlp"), make_episodes()) < 1e-7


def test_every_meta_gradient_has_a_test():
    oracles = {"fomaml"}
    pre_trained = {"contrastive", "fine_tuning", "simple_shot", "imprinted", "baseline_plus_plus"}
    pre_trained |= {"contrastive_pairs", "triplet", "sphereface", "cosface", "arcface"}
    # Under tests/learners.
    own_files = {*pre_trained, "reptile", "imaml", "siamese", "metanet", "lstm_meta_learner"}
    for name, row in LEARNERS.items():
        kind = row.meta_gradient
        tested = kind in ("exact", "none") or name in oracles | own_files
        assert tested, f"{name} has a meta-gradient that is {kind}: add an oracle of its own"
        assert row.meta_trained == (kind != "none")


@pytest.mark.parametrize(
    ("name", "option"),
    [(name, option) for name, row in LEARNERS.items() for option in option_types(row.constructor)],
)
def test_wrong_values_of_options_are_refused_in_python_too(name, option):
    row = LEARNERS[name]
    arguments = row.arguments(
        build_backbone(Choice("flatten"), (4,)), TaskShape((4,), 3, 12, row.kinds[0])
    )
    with pytest.raises(ValueError, match=f"Option '{option}' of .* must be"):
        row.constructor(*arguments, **{option: "misspelt"})
