"""What contract tests share: small tasks, and every learner of the registry on narrow networks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kshot.backbones.normalization import apply_to_query, apply_to_support
from kshot.config import Choice
from kshot.episodes import Episodes, Examples, map_tensors
from kshot.learner import MetaLearner
from kshot.learners.registry import LEARNERS, TaskShape, build_learner
from kshot.losses import mask_absent
from kshot.options import option_types

SHAPES = {"mlp": (4,), "flatten": (4,)}
PICTURE = (1, 16, 16)
NARROW: dict[str, dict[str, Any]] = {
    "mlp": {"widths": (5, 4), "activation": "softplus"},
    "conv4": {"hidden": 3},
    "conv4_strided": {"hidden": 3},
    "resnet12": {"widths": (2, 2, 3, 3)},
}
# Several steps with a large rate, so that second derivatives weigh; few, so that tests are fast.
STEPS: dict[str, dict[str, Any]] = {
    "fine_tuning": {"num_test_steps": 3, "inner_lr": 0.3},
    "contrastive": {"num_test_steps": 3, "inner_lr": 0.3, "noise": 0.3},
    "maml": {"num_inner_steps": 2, "inner_lr": 0.3},
    "fomaml": {"num_inner_steps": 2, "inner_lr": 0.3},
    "anil": {"num_inner_steps": 2, "inner_lr": 0.3},
    "maml_plus_plus": {"num_inner_steps": 2, "inner_lr": 0.3},
    "imaml": {"num_inner_steps": 8, "inner_lr": 0.3, "strength": 1.0},
    "meta_sgd": {"num_inner_steps": 2, "lowest_rate": 0.1, "highest_rate": 0.5},
    "lstm_meta_learner": {"num_inner_steps": 2, "hidden": 3},
    "imprinted": {"num_test_steps": 3, "inner_lr": 0.3},
    "baseline_plus_plus": {"num_test_steps": 3, "inner_lr": 0.3},
    "siamese": {"features": 3},
    "matching_fce": {"num_reads": 2},
    "relation": {"hidden": 3},
    "lstm": {"hidden": 6},
    "gru": {"hidden": 6},
    "ntm": {"hidden": 10, "slots": 5, "width": 3},
    "mann": {"hidden": 6, "slots": 8, "width": 3, "num_heads": 2},
    "snail": {"filters": 4, "max_shot": 2},
    "metanet": {"units": 4, "num_gradients": 3},
    "reptile": {"num_inner_steps": 2, "num_test_steps": 3, "inner_lr": 0.05},
}
MAX_WAY = 4


@pytest.fixture
def smooth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks without the kinks of ReLU, which central differences would trip over."""
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: F.softplus(x))
    monkeypatch.setattr(F, "leaky_relu", lambda x, slope: slope * x + (1 - slope) * F.softplus(x))


@pytest.fixture(scope="session")
def make_learner() -> Callable[..., MetaLearner]:
    """Builds a registry row in float64; its network has 4 outputs, one more than tasks need."""

    def make(
        name: str,
        backbone: str,
        kind: str = "classification",
        *,
        way: int = MAX_WAY,
        **options: Any,
    ) -> MetaLearner:
        known = option_types(LEARNERS[name].constructor)
        options = {key: value for key, value in options.items() if key in known}
        classes = 12 if kind == "classification" else 0
        shape = TaskShape(SHAPES.get(backbone, PICTURE), way, classes, kind)  # pyright: ignore
        with torch.random.fork_rng():
            torch.manual_seed(0)
            learner = build_learner(
                Choice(name, {**STEPS.get(name, {}), **options}),
                Choice(backbone, NARROW.get(backbone, {})),
                shape,
            ).double()
            for buffer_name, buffer in learner.named_buffers():  # running averages as if trained
                if buffer.is_floating_point():
                    # Means around 0, or no example would get past the ReLUs of a narrow network.
                    low = -0.5 if buffer_name.endswith("running_mean") else 0.5
                    buffer.copy_(torch.rand_like(buffer) + low)
        return learner

    return make


@pytest.fixture(scope="session")
def make_episodes() -> Callable[..., Episodes]:
    """Draws two tasks for a backbone: classes are noisy centers, regression targets are random."""

    def make(
        backbone: str = "mlp",
        kind: str = "classification",
        *,
        way: int = 3,
        shot: int = 2,
        query_shot: int = 2,
        tasks: int = 2,
        noise: float = 1.0,
        seed: int = 0,
    ) -> Episodes:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        shape = SHAPES.get(backbone, PICTURE)
        centers = normal(tasks, way, *shape)

        def draw(count: int) -> Examples:
            inputs = centers.repeat(1, count, *(1,) * len(shape))
            inputs = inputs + noise * normal(tasks, way * count, *shape)
            targets = torch.eye(way, dtype=torch.float64).repeat(tasks, count, 1)
            if kind == "regression":
                return Examples(inputs, normal(*targets.shape))
            order = torch.rand(tasks, way * count, generator=generator).argsort(1)
            rows = torch.arange(tasks)[:, None], order
            return Examples(inputs[rows], targets[rows])

        support, query = draw(shot), draw(query_shot)
        classes = torch.arange(tasks * way).view(tasks, way) if kind == "classification" else None
        return Episodes(support, query, classes)

    return make


@pytest.fixture(scope="session")
def padded() -> Callable[..., Episodes]:
    """Adds rows that are no examples, and in classification columns that are no classes.

    The rows look like examples: other inputs, and a target of a class at hand.
    """

    def pad_rows(examples: Examples, count: int) -> Examples:
        inputs, targets, mask = examples
        assert isinstance(inputs, Tensor) and mask is None
        generator = torch.Generator().manual_seed(count)
        shape = (len(inputs), count, *inputs.shape[2:])
        noise = 3 * torch.randn(shape, generator=generator, dtype=inputs.dtype) + 1
        mask = torch.ones(targets.shape[:2], dtype=torch.bool)
        return Examples(
            torch.cat([inputs, noise], dim=1),
            torch.cat([targets, targets[:, :1].expand(-1, count, -1)], dim=1),
            F.pad(mask, (0, count), value=False),
        )

    def pad(episodes: Episodes, rows: tuple[int, int] = (2, 1), columns: int = 1) -> Episodes:
        support, query = map(pad_rows, episodes[:2], rows)
        if episodes.classes is None:
            return Episodes(support, query)
        return Episodes(
            support._replace(targets=F.pad(support.targets, (0, columns))),
            query._replace(targets=F.pad(query.targets, (0, columns))),
            F.pad(episodes.classes, (0, columns), value=-1),
        )

    return pad


@pytest.fixture(scope="session")
def first_order_gradient() -> Callable[[Any, Episodes], list[Tensor]]:
    """The gradient of FOMAML by a slow, obvious loop: that of the query loss where steps lead."""

    def gradient(learner: Any, episodes: Episodes) -> list[Tensor]:
        tasks = len(episodes.query.targets)
        total = [torch.zeros_like(p) for p in learner.net.parameters()]
        for task in range(tasks):
            (support, query, classes) = map_tensors(lambda x, task=task: x[task], episodes)
            present = (support.targets[support.mask if support.mask is not None else ...] > 0).any(
                0
            )
            if classes is None:
                present = torch.ones_like(present)
            way = len(present)
            params = {k: p.detach().clone() for k, p in learner.net.named_parameters()}

            def network(inputs: Any, params: dict[str, Tensor], way: int = way) -> Tensor:
                return torch.func.functional_call(learner.net, params, (inputs,))[:, :way]

            def slope(loss: Tensor, params: dict[str, Tensor]) -> list[Tensor]:
                grads = torch.autograd.grad(loss, list(params.values()), materialize_grads=True)
                return list(grads)

            policy = learner.batch_norm
            for _ in range(learner.num_inner_steps):
                params = {k: p.detach().requires_grad_() for k, p in params.items()}
                outputs = apply_to_support(
                    lambda x, params=params: network(x, params),
                    policy,
                    support.inputs,
                    support.mask,
                )
                loss = learner.loss(mask_absent(outputs, present), support.targets, support.mask)
                grads = slope(loss, params)
                params = {
                    k: p.detach() - learner.rule.lr * g
                    for (k, p), g in zip(params.items(), grads, strict=True)
                }
            params = {k: p.detach().requires_grad_() for k, p in params.items()}
            outputs = apply_to_query(
                lambda x, params=params: network(x, params),
                policy,
                query.inputs,
                query.mask,
                support.inputs,
                support.mask,
            )
            outputs = mask_absent(outputs, None if classes is None else classes >= 0)
            loss = learner.loss(outputs, query.targets, query.mask)
            total = [a + g / tasks for a, g in zip(total, slope(loss, params), strict=True)]
        return total

    return gradient
