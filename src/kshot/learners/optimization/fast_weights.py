"""Learners whose adaptation is gradient descent: one state and one adapt for all of them."""

import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.backbones.normalization import (
    apply_to_query,
    apply_to_support,
    exact_network,
    policy_for,
    reads_support,
    split_affine,
)
from kshot.config import BatchNormPolicy
from kshot.episodes import Examples, Inputs, leaves, map_tensors
from kshot.learner import MetaLearner
from kshot.learners.optimization.inner_loop import inner_loop
from kshot.learners.optimization.update_rules import Params, UpdateRule
from kshot.learners.task_map import Strategy, choose_strategy, forward_flops, map_tasks
from kshot.losses import Loss, counted_rows, mask_absent

__all__ = ["FastWeightLearner", "FastWeights", "present_columns", "trainable_params"]


class FastWeights(NamedTuple):
    """What gradient steps on a support set leave.

    Attributes:
        params: adapted parameters by name, each (tasks, *shape).
        present: (tasks, way), which columns the support set has examples of.
        support_inputs: (tasks, n, *shape), for BatchNorm policies that read them, else None.
        support_mask: (tasks, n), as `support_inputs`.
    """

    params: Params
    present: Bool[Tensor, "tasks way"]
    support_inputs: Inputs | None
    support_mask: Bool[Tensor, "tasks n"] | None


class FastWeightLearner(MetaLearner[FastWeights]):
    """A learner that adapts a network by gradient steps on each task's support loss.

    Subclasses say where the steps start and what is minimized across tasks.

    Args:
        net: network from inputs (n, *shape) to outputs (n, columns).
        rule: how gradients move parameters.
        num_inner_steps: steps in meta-training.
        num_test_steps: steps in evaluation mode; None takes `num_inner_steps`.
        inner_batch_size: support examples of a step in meta-training, 0 all; minibatches go round
            the support set in its own order.
        test_batch_size: support examples of a step in evaluation mode, 0 all.
        first_order: treat inner gradients as constants.
        batch_norm: where BatchNorm statistics come from.
        strategy: compute tasks by vmap or in a loop.
        chunk_size: tasks vectorized at once; 0 means all.
        loss: loss of a task, inner and outer.
    """

    def __init__(
        self,
        net: nn.Module,
        rule: UpdateRule,
        *,
        num_inner_steps: int,
        num_test_steps: int | None,
        inner_batch_size: int = 0,
        test_batch_size: int = 0,
        first_order: bool,
        batch_norm: BatchNormPolicy,
        strategy: Strategy,
        chunk_size: int,
        loss: Loss,
    ) -> None:
        net = split_affine(net) if first_order else exact_network(net)
        super().__init__(loss=loss, batch_norm=policy_for(net, batch_norm))
        self.net = net
        self.rule = rule
        self.num_inner_steps = num_inner_steps
        self.num_test_steps = num_inner_steps if num_test_steps is None else num_test_steps
        self.inner_batch_size = inner_batch_size
        self.test_batch_size = test_batch_size
        self.first_order = first_order
        self.strategy: Strategy = strategy
        self.chunk_size = chunk_size
        self._flops: dict[tuple[torch.Size, ...], int] = {}  # of one task, by the inputs' shapes

    @abstractmethod
    def initialization(self, way: int) -> Params:
        """The parameters that inner steps start from and move, for a task of `way` columns."""

    def adapt(self, support: Examples) -> FastWeights:
        """Take the inner steps on each task's support set."""
        present = present_columns(support, self.loss)
        num_steps = self.num_inner_steps if self.training else self.num_test_steps or 0
        batch_size = self.inner_batch_size if self.training else self.test_batch_size

        def adapt_one_task(support: Examples, present: Tensor) -> Params:
            def support_loss(params: Params, step: int) -> Tensor:
                inputs, targets, mask = _minibatch(support, step, batch_size, self.loss.kind)
                outputs = apply_to_support(
                    lambda inputs: self._outputs(params, inputs, len(present)),
                    self.batch_norm,
                    inputs,
                    mask,
                )
                return self.loss(mask_absent(outputs, present), targets, mask)

            steps = inner_loop(
                support_loss, initialization, self.rule, num_steps, first_order=self.first_order
            )
            return deque(steps, maxlen=1).pop()

        with _parameters_exchanged():
            initialization = self.initialization(support.targets.shape[-1])
            params = self._map_tasks(adapt_one_task, support.inputs, support, present)
        kept = reads_support(self.batch_norm)
        return FastWeights(
            params, present, support.inputs if kept else None, support.mask if kept else None
        )

    def predict(
        self, state: FastWeights, inputs: Inputs, mask: Bool[Tensor, "tasks m"] | None = None
    ) -> Float[Tensor, "tasks m way"]:
        """Outputs of each task's adapted network."""

        def predict_one_task(state: FastWeights, inputs: Inputs, mask: Tensor | None) -> Tensor:
            return apply_to_query(
                lambda inputs: self._outputs(state.params, inputs, len(state.present)),
                self.batch_norm,
                inputs,
                mask,
                state.support_inputs,
                state.support_mask,
            )

        with _parameters_exchanged():
            return self._map_tasks(predict_one_task, inputs, state, inputs, mask)

    def _map_tasks(self, function: Callable[..., Any], inputs: Inputs, *trees: Any) -> Any:
        strategy = self._choose(inputs) if self.strategy == "auto" else self.strategy
        return map_tasks(function, *trees, strategy=strategy, chunk_size=self.chunk_size or None)

    def _choose(self, inputs: Inputs) -> Literal["vmap", "loop"]:
        """The strategy for tasks of some inputs (tasks, n, *shape)."""
        tensors = leaves(inputs)
        if tensors[0].device.type != "cpu" or not len(tensors[0]) or torch.compiler.is_compiling():
            return "vmap"
        shapes = tuple(leaf.shape[1:] for leaf in tensors)
        if shapes not in self._flops:
            one_task = map_tensors(lambda leaf: leaf[0], inputs)
            self._flops[shapes] = forward_flops(self.net, one_task)
        return choose_strategy(self._flops[shapes])

    def _outputs(self, params: Params, inputs: Inputs, way: int) -> Float[Tensor, "n way"]:
        outputs = torch.func.functional_call(self.net, params, (inputs,))
        if outputs.dim() != 2 or outputs.shape[1] < way:
            raise ValueError(
                f"The network gave outputs of shape {tuple(outputs.shape)} for one task; expected "
                f"(examples, at least {way}): one column for each of the episode's {way} classes "
                "or outputs. Give the network more outputs, or draw episodes of a smaller way."
            )
        return outputs[:, :way]


_LOCK = threading.RLock()


def _parameters_exchanged() -> AbstractContextManager[object]:
    """Within: functional_call may put a task's parameters into the network; no other thread does.

    So threads can share a learner.
    """
    return nullcontext() if torch.compiler.is_compiling() else _LOCK


def trainable_params(net: nn.Module) -> Params:
    """The parameters of a network that are not frozen."""
    return {name: value for name, value in net.named_parameters() if value.requires_grad}


def _minibatch(support: Examples, step: int, size: int, kind: str) -> Examples:
    """The examples of one task that a step sees: the next ones, round and round; size 0 is all.

    Rows that are no examples, or have no label, are passed over.
    """
    inputs, targets, mask = support
    if not 0 < size < len(targets):
        return support
    counted = counted_rows(targets, mask, kind)
    order = torch.argsort(~counted, stable=True)
    count = counted.sum().clamp_min(1)
    place = torch.arange(size, device=targets.device)
    rows = order[(step * size + place) % count]
    # Where a task has fewer examples than a minibatch, none comes twice.
    return Examples(
        map_tensors(lambda tensor: tensor[rows], inputs),
        targets[rows],
        counted[rows] & (place < count),
    )


def present_columns(support: Examples, loss: Loss) -> Bool[Tensor, "tasks way"]:
    """Which columns the support set has examples of; in regression all of them."""
    labelled = support.targets > 0
    if loss.kind == "regression":
        return labelled.new_ones(labelled.shape[0], labelled.shape[2])
    if support.mask is not None:
        labelled = labelled & support.mask.unsqueeze(-1)
    return labelled.any(dim=1)
