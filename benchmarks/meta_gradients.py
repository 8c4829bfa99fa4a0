"""Meta-gradients beside central differences, for every learner, network, strategy and policy."""

import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.rows import benchmark_row, write_rows
from kshot import LEARNERS, MAML, Episodes, Examples, MetaLearner
from kshot.config import Choice
from kshot.episodes import map_tensors
from kshot.learners.optimization.fast_weights import FastWeightLearner
from kshot.learners.registry import TaskShape, build_learner
from kshot.options import option_types, unwrapped
from kshot.testing import meta_gradient_error

__all__ = ["main"]

Row = dict[str, Any]

WAY = 3
PICTURE = (1, 16, 16)
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"widths": (5, 4), "activation": "softplus"},
    "conv4": {"hidden": 3},
    "conv4_strided": {"hidden": 3},
    "resnet12": {"widths": (2, 2, 3, 3)},
}
POLICIES = ("running", "batch", "support", "support_and_query")
STEPS = {"num_inner_steps": 2, "inner_lr": 0.3, "lowest_rate": 0.2, "highest_rate": 0.4}
# Its meta-loss takes where the steps lead as constants, as differences cannot; its tests can.
NOT_BY_DIFFERENCES = {"reptile"}
# Networks keep ReLU, whose kinks spoil long steps as rounding spoils short ones; a wrong gradient
# is wrong for every step, so the best of these counts.
LENGTHS = (1e-5, 1e-6, 1e-7)


def main() -> None:
    """Measure and write results/benchmarks/meta_gradients.json."""
    torch.set_num_threads(1)
    rows = [_measure(*case) for case in _cases()]
    rows += [_trap(norm) for norm in ("BatchNorm2d", "LayerNorm")]
    print("\nlargest relative error of each learner, beside central differences in float64")
    exact = [row for row in rows if "trap" not in row["case"]]
    for name in dict.fromkeys(row["learner"] for row in exact):
        errors = [row["relative_error"] for row in exact if row["learner"] == name]
        print(f"{name:<20} {max(errors):.1e}  ({len(errors)} cases)")
    write_rows("meta_gradients", rows)


def _cases() -> Iterator[tuple[str, str, str | None, str | None, bool]]:
    for name, row in LEARNERS.items():
        if not row.meta_trained or name in NOT_BY_DIFFERENCES:
            continue
        looped = row.family == "optimization" and "strategy" in option_types(row.constructor)
        for backbone, masked in itertools.product(NETWORKS, (False, True)):
            # Pre-training, what the meta-loss of fine_tuning is, knows no policy.
            own = backbone == "mlp" or name == "fine_tuning"
            able = unwrapped(row.constructor).batch_norm_policies  # pyright: ignore
            policies = (None,) if own else tuple(policy for policy in POLICIES if policy in able)
            strategies: tuple[str | None, ...] = ("vmap", "loop") if looped else (None,)
            for policy, strategy in itertools.product(policies, strategies):
                yield name, backbone, strategy, policy, masked


def _measure(
    name: str, backbone: str, strategy: str | None, policy: str | None, masked: bool
) -> Row:
    shape = (4,) if backbone == "mlp" else PICTURE
    options: dict[str, Any] = {"strategy": strategy, "batch_norm": policy}
    if LEARNERS[name].family == "optimization":
        options |= STEPS
    known = option_types(LEARNERS[name].constructor)
    options = {key: value for key, value in options.items() if key in known and value is not None}
    torch.manual_seed(0)
    learner = build_learner(
        Choice(name, options),
        Choice(backbone, NETWORKS[backbone]),
        TaskShape(shape, WAY, 2 * WAY, "classification"),
    )
    episodes = _episodes(shape, masked)
    if LEARNERS[name].meta_gradient == "first_order":
        assert isinstance(learner, FastWeightLearner)
        error = _first_order_error(learner.double(), episodes)
    else:
        error = min(meta_gradient_error(learner, episodes, step=length) for length in LENGTHS)
    traits = [name, backbone, strategy, learner.batch_norm, "masked" if masked else None]
    return _row(" ".join(filter(None, traits)), learner, backbone, strategy, masked, error)


def _row(
    case: str,
    learner: MetaLearner,
    backbone: str,
    strategy: str | None,
    masked: bool,
    error: float,
    peer: float | None = None,
    peer_name: str = "",
) -> Row:
    return benchmark_row(
        case,
        error,
        peer,
        peer_name,
        "rel. error",
        learner=case.split()[0],
        backbone=backbone,
        strategy=strategy,
        batch_norm=learner.batch_norm,
        masked=masked,
        relative_error=error,
        dtype="float64",
    )


def _episodes(shape: tuple[int, ...], masked: bool) -> Episodes:
    """Two tasks of 3 classes, 2-shot, 2 queries a class; masked: the last rows of one are none."""
    generator = torch.Generator().manual_seed(0)

    def draw(real: int) -> Examples:
        inputs = torch.randn(2, 2 * WAY, *shape, generator=generator, dtype=torch.float64)
        targets = torch.eye(WAY, dtype=torch.float64).repeat(2, 2, 1)
        mask = torch.arange(2 * WAY) < torch.tensor([[2 * WAY], [real]])
        return Examples(inputs, targets, mask if masked else None)

    return Episodes(draw(4), draw(5), torch.arange(2 * WAY).view(2, WAY))


def _first_order_error(learner: FastWeightLearner, episodes: Episodes) -> float:
    """What first-order methods give is the slope of the query loss where the steps lead."""
    names, parameters = zip(*learner.net.named_parameters(), strict=True)
    gradient = torch.autograd.grad(learner(episodes), parameters)
    query, state = episodes.query, learner.adapt(episodes.support)

    def loss_at(distance: float, direction: dict[str, Tensor]) -> float:
        moved = map_tensors(lambda p, d: p + distance * d, state.params, direction)
        outputs = learner.predict(state._replace(params=moved), query.inputs, query.mask)
        return learner.query_loss(outputs, episodes).item()

    torch.manual_seed(0)
    drawn = [torch.randn_like(parameter) for parameter in parameters]
    length = torch.cat([part.flatten() for part in drawn]).norm()
    direction = {name: part / length for name, part in zip(names, drawn, strict=True)}
    slope = sum((g * d).sum().item() for g, d in zip(gradient, direction.values(), strict=True))
    differences = [(loss_at(h, direction) - loss_at(-h, direction)) / (2 * h) for h in LENGTHS]
    return min(abs(difference - slope) for difference in differences) / abs(slope)


def _trap(norm: str) -> Row:
    """A network of PyTorch's own layers, as it is under vmap and after the conversion."""
    episodes = _episodes((1, 6, 6), masked=False)
    steps = {"num_inner_steps": 5, "inner_lr": 0.4}

    def network(track: bool) -> nn.Module:
        torch.manual_seed(0)
        layers = {
            "BatchNorm2d": nn.BatchNorm2d(3, track_running_stats=track),
            "LayerNorm": nn.LayerNorm([3, 4, 4]),
        }
        return nn.Sequential(
            nn.Conv2d(1, 3, 3), layers[norm], nn.Softplus(), nn.Flatten(), nn.Linear(48, WAY)
        )

    fused = MAML(nn.Identity(), strategy="vmap", **steps)
    fused.net = network(track=False)  # past the constructor, which would convert it
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exact = MAML(network(track=True), strategy="vmap", **steps)
    assert any("silently wrong" in str(warning.message) for warning in caught)
    return _row(
        f"maml nn.{norm} vmap, the trap, converted",
        exact,
        f"conv with nn.{norm}",
        "vmap",
        False,
        meta_gradient_error(exact, episodes),
        meta_gradient_error(fused, episodes),
        "unconverted",
    )
