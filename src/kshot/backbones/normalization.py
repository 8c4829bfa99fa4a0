"""Normalization that is exact under vmap and says which examples its statistics come from.

Fused affine normalization has silently wrong second-order gradients under `torch.func.vmap`
(docs/vmap.md), so there every layer here normalizes first, and scales and shifts by hand.
`BatchNorm` takes its statistics from what the surrounding code says: its running averages, or a
set of rows.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.config import BatchNormPolicy
from kshot.episodes import Inputs, concatenate_inputs, leaves, map_tensors
from kshot.transforms import being_traced, being_vectorized

__all__ = [
    "BatchNorm",
    "apply_to_query",
    "apply_to_support",
    "has_batch_norm",
    "has_running_averages",
    "per_channel",
    "policy_for",
    "reads_stored",
    "reads_support",
    "recorded_statistics",
    "rows_statistics",
    "stored_statistics",
]


class BatchNorm(nn.Module):
    r"""Batch normalization for inputs (n, num_features, *space).

    y = weight (x - mean) / sqrt(var + eps) + bias, where mean and var come from
      - the running averages, in evaluation mode or within `stored_statistics()`;
      - the whole batch, in training mode, which also updates the running averages;
      - some rows of the batch, within `rows_statistics(...)`: then nothing is stored.

    Args:
        num_features: channels.
        eps: added to the variance.
        momentum: weight of the newest batch in the running averages.

    Reference:
        Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
        Shift. ICML 2015. https://arxiv.org/abs/1502.03167
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any
    ) -> None:
        # torch's own layers also count batches, for a cumulative average that there is not here.
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def forward(self, x: Float[Tensor, "n features *space"]) -> Float[Tensor, "n features *space"]:
        """Normalize, with statistics from where the surrounding code says."""
        source = _SOURCE.get()
        if source is None and self.training:
            # Running averages are written, which vmap forbids: the fused kernel is safe here.
            return F.batch_norm(
                x,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                training=True,
                momentum=self.momentum,
                eps=self.eps,
            )
        if source is None or source is _STORED:
            scale = self.weight * (self.running_var + self.eps).rsqrt()
            shift = self.bias - self.running_mean * scale
            return torch.addcmul(per_channel(shift, x), x, per_channel(scale, x))
        rows = source if isinstance(source, Tensor) else None
        recorded = _RECORD.get()
        if recorded is not None:
            # The averages that these move have more digits than x under autocast.
            recorded[self] = _mean_and_variance(x.detach().to(self.running_mean.dtype), rows)
        if rows is None and not being_vectorized():  # then the fused kernel is exact, and faster
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)
        normalized = _normalize_by_rows(x, rows, self.eps)
        return normalized * per_channel(self.weight, x) + per_channel(self.bias, x)


def has_batch_norm(net: nn.Module) -> bool:
    """Whether a network has a layer whose statistics depend on a policy."""
    return any(isinstance(layer, BatchNorm) for layer in net.modules())


def has_running_averages(net: nn.Module) -> bool:
    """Whether the BatchNorm layers of a network have seen data, so that "running" means something.

    Training under another policy leaves the averages as they were at first: mean 0, variance 1.
    """
    return not any(
        isinstance(layer, BatchNorm)
        and not layer.running_mean.any()
        and bool((layer.running_var == 1).all())
        for layer in net.modules()
    )


def reads_stored(policy: BatchNormPolicy) -> bool:
    """Whether no example's output depends on another's, so that tasks may share one call."""
    return policy in ("running", "per_step", "none")


def reads_support(policy: BatchNormPolicy) -> bool:
    """Whether a query passes through the network together with the support set."""
    return policy in ("support", "support_and_query")


def policy_for(net: nn.Module, policy: BatchNormPolicy) -> BatchNormPolicy:
    """The BatchNorm policy of a learner with this network: "none" when it has no such layer.

    Raises:
        ValueError: for "none" when it has one.
    """
    if not has_batch_norm(net):
        return "none"
    if policy == "none":
        raise ValueError(
            "batch_norm='none' is for networks without BatchNorm, and this one has it: say where "
            "its statistics come from: running, batch, support or support_and_query."
        )
    return policy


@contextlib.contextmanager
def stored_statistics() -> Iterator[None]:
    """Within: every `BatchNorm` reads its running averages, in training mode too."""
    token = _SOURCE.set(_STORED)
    try:
        yield
    finally:
        _SOURCE.reset(token)


@contextlib.contextmanager
def rows_statistics(rows: Bool[Tensor, " n"] | None = None) -> Iterator[None]:
    """Within: every `BatchNorm` takes its statistics from some rows of the batch; None: all."""
    token = _SOURCE.set(_ALL_ROWS if rows is None else rows)
    try:
        yield
    finally:
        _SOURCE.reset(token)


@contextlib.contextmanager
def recorded_statistics() -> Iterator[dict[nn.Module, tuple[Tensor, Tensor]]]:
    """Within: every `BatchNorm` that takes statistics from rows notes their mean and variance."""
    recorded: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    token = _RECORD.set(recorded)
    try:
        yield recorded
    finally:
        _RECORD.reset(token)


def apply_to_support(
    network: Callable[[Inputs], Tensor],
    policy: BatchNormPolicy,
    inputs: Inputs,
    mask: Bool[Tensor, " n"] | None,
) -> Tensor:
    """A network's outputs (n, ...) for one task's support inputs (n, *shape) under a policy."""
    if reads_stored(policy):
        with stored_statistics():
            return network(inputs)
    with rows_statistics(mask):
        return network(inputs)


def apply_to_query(
    network: Callable[[Inputs], Tensor],
    policy: BatchNormPolicy,
    inputs: Inputs,
    mask: Bool[Tensor, " m"] | None,
    support_inputs: Inputs | None,
    support_mask: Bool[Tensor, " n"] | None,
) -> Tensor:
    """A network's outputs (m, ...) for one task's query inputs (m, *shape) under a policy.

    `support` and `support_and_query` pass the support set through the network again, beside the
    queries or beside one query at a time.
    """
    if not reads_support(policy):
        return apply_to_support(network, policy, inputs, mask)
    if support_inputs is None:
        raise ValueError(
            f"The BatchNorm policy {policy!r} reads the support set, and this state was learned "
            "under one that keeps none: adapt and predict in the same mode and under one policy."
        )
    support_rows = _rows(support_inputs, support_mask)
    if policy == "support":
        query_rows = torch.zeros_like(_rows(inputs, None))
        with rows_statistics(torch.cat([support_rows, query_rows])):
            outputs = network(concatenate_inputs(support_inputs, inputs, dim=0))
        return outputs[len(support_rows) :]

    def one_query(query: Inputs) -> Tensor:
        single = map_tensors(lambda tensor: tensor.unsqueeze(0), query)
        with rows_statistics(torch.cat([support_rows, torch.ones_like(support_rows[:1])])):
            return network(concatenate_inputs(support_inputs, single, dim=0))[-1]

    # Every query passes through with the whole support set: bound what is in memory at once.
    chunk_size = max(1, _EXAMPLES_AT_ONCE // (len(support_rows) + 1))
    return torch.func.vmap(one_query, chunk_size=chunk_size, randomness="different")(inputs)


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """Values (channels,) shaped to multiply x (n, channels, *space)."""
    return values.view(-1, *(1,) * (x.dim() - 2))


_EXAMPLES_AT_ONCE = 128


class _Source:
    """A place statistics come from that is not a set of rows."""


_STORED, _ALL_ROWS = _Source(), _Source()
_SOURCE: contextvars.ContextVar[_Source | Tensor | None] = contextvars.ContextVar(
    "batch_norm_statistics", default=None
)
_RECORD: contextvars.ContextVar[dict[nn.Module, tuple[Tensor, Tensor]] | None]
_RECORD = contextvars.ContextVar("batch_norm_record", default=None)


def _rows(inputs: Inputs, mask: Tensor | None) -> Tensor:
    if mask is not None:
        return mask
    first = leaves(inputs)[0]
    return torch.ones(first.shape[0], dtype=torch.bool, device=first.device)


def _normalize_by_rows(x: Tensor, rows: Tensor | None, eps: float) -> Tensor:
    if rows is None and not being_traced():
        return F.batch_norm(x, None, None, training=True, eps=eps)
    mean, variance = _mean_and_variance(x, rows)
    return (x - per_channel(mean, x)) * per_channel((variance + eps).rsqrt(), x)


def _mean_and_variance(x: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
    """Of each channel of x (n, channels, *space), over some of its rows; None: all."""
    dims = [0, *range(2, x.dim())]
    if rows is None:
        variance, mean = torch.var_mean(x, dims, correction=0)
        return mean, variance
    weight = rows.to(x.dtype).view(-1, *(1,) * (x.dim() - 1))
    count = weight.sum().clamp_min(1) * math.prod(x.shape[2:])
    mean = (x * weight).sum(dims) / count
    return mean, ((x - per_channel(mean, x)).square() * weight).sum(dims) / count
