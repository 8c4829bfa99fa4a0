"""Learners whose adaptation is gradient descent: one state and one adapt for all of them."""

import copy
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.backbones.conversion import exact_network, split_affine
from kshot.backbones.heads import WithHead
from kshot.backbones.normalization import (
    apply_to_query,
    apply_to_support,
    policy_for,
    reads_support,
)
from kshot.config import BatchNormPolicy
from kshot.episodes import Examples, Inputs, leaves, map_tensors
from kshot.learner import MetaLearner
from kshot.learners.optimization.inner_loop import checked_steps, inner_loop, inner_step
from kshot.learners.optimization.recomputation import recomputed
from kshot.learners.optimization.update_rules import Params, RuleState, UpdateRule
from kshot.learners.task_map import Strategy, choose_strategy, forward_flops, map_tasks
from kshot.losses import Loss, counted_rows, mask_absent
from kshot.transforms import being_traced

__all__ = [
    "FastWeightLearner",
    "FastWeights",
    "adapted_params",
    "parameters_exchanged",
    "present_columns",
]


Network = Callable[[Params, Inputs, int], Tensor]
"""From a task's parameters, its inputs (n, *shape) and its way to outputs (n, way)."""


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

    Subclasses say by which rule, where the steps start and what is minimized across tasks.

    Args:
        net: network from inputs (n, *shape) to outputs (n, columns).
        rule: how gradients move parameters.
        adapted: which parameters the steps move, as `adapted_params` reads it.
        num_inner_steps: steps in meta-training.
        num_test_steps: steps in evaluation mode; None takes `num_inner_steps`.
        inner_batch_size: support examples of a step in meta-training, 0 all; minibatches go round
            the support set in its own order.
        test_batch_size: support examples of a step in evaluation mode, 0 all.
        first_order: treat inner gradients as constants.
        batch_norm: where BatchNorm statistics come from.
        strategy: compute tasks by vmap or in a loop.
        chunk_size: tasks vectorized at once; 0 means all.
        gradient_checkpointing: compute each step again in the backward pass instead of keeping its
            intermediate results: memory for one step, and time for two forward passes.
        loss: loss of a task, inner and outer.
    """

    def __init__(
        self,
        net: nn.Module,
        rule: UpdateRule,
        *,
        adapted: tuple[str, ...] = ("*",),
        num_inner_steps: int,
        num_test_steps: int | None,
        inner_batch_size: int = 0,
        test_batch_size: int = 0,
        first_order: bool,
        batch_norm: BatchNormPolicy,
        strategy: Strategy,
        chunk_size: int,
        gradient_checkpointing: bool = False,
        loss: Loss,
    ) -> None:
        net = split_affine(net) if first_order else exact_network(net)
        super().__init__(loss=loss, batch_norm=policy_for(net, batch_norm))
        self.net = net
        self.rule = rule
        self.adapted = tuple(adapted_params(net, adapted))
        self.num_inner_steps, self.num_test_steps = checked_steps(num_inner_steps, num_test_steps)
        self.inner_batch_size = inner_batch_size
        self.test_batch_size = test_batch_size
        self._first_order = first_order
        self.strategy: Strategy = strategy
        self.chunk_size = chunk_size
        self.gradient_checkpointing = gradient_checkpointing
        self._flops: dict[tuple[torch.Size, ...], int] = {}  # of one task, by the inputs' shapes

    def initialization(self, way: int) -> Params:
        """The parameters that inner steps start from and move, for a task of `way` columns."""
        params = dict(self.net.named_parameters())
        return {name: params[name] for name in self.adapted}

    def regularization(self, params: Params, start: Params) -> Float[Tensor, ""] | float:
        """What inner steps minimize besides the support loss, having begun at `start`."""
        return 0.0

    def beside(self, step: int) -> Params:
        """Tensors that the network has in place of its own after some steps, by name."""
        return {}

    def adapt(self, support: Examples) -> FastWeights:
        """Take the inner steps on each task's support set."""
        present = present_columns(support, self.loss)
        with parameters_exchanged():
            start = self.initialization(support.targets.shape[-1])
            adapted = self._recomputed if self.gradient_checkpointing else self._remembered
            params = adapted(start, support, present)
        kept = reads_support(self.policy)
        return FastWeights(
            params, present, support.inputs if kept else None, support.mask if kept else None
        )

    def _remembered(self, start: Params, support: Examples, present: Tensor) -> Params:
        """The parameters after the last step, all steps kept for the backward pass."""

        def adapt_one_task(support: Examples, present: Tensor) -> Params:
            return deque(self.trajectory(start, support, present), maxlen=1).pop()

        return self.map_tasks(adapt_one_task, self._of_a_step(support.inputs), support, present)

    def _recomputed(self, start: Params, support: Examples, present: Tensor) -> Params:
        """The same, each step computed again in the backward pass."""
        assert not self.beside(0), "what is beside the parameters is not recomputed"
        training = self.training

        def begin(present: Tensor) -> tuple[Params, RuleState]:
            return start, self.rule.init(start)

        def take(
            step: int, start: Params, params: Params, state: RuleState, support: Examples
        ) -> tuple[Params, RuleState]:
            def one_task(
                params: Params, state: RuleState, support: Examples, present: Tensor
            ) -> tuple[Params, RuleState]:
                loss = partial(self._inner_loss, start, support, present, step=step)
                return inner_step(loss, params, self.rule, state, first_order=self.first_order)

            if self.training != training:
                raise RuntimeError(
                    "The learner went from training to evaluation, or back, between adaptation and "
                    "the backward pass, which computes the steps again."
                )
            with parameters_exchanged():
                return self.map_tasks(one_task, of_a_step, params, state, support, present)

        of_a_step = self._of_a_step(support.inputs)
        params, state = self.map_tasks(begin, of_a_step, present)
        for step in range(self._num_steps):
            step_taken = partial(take, step)
            params, state = recomputed(step_taken, self.parameters(), start, params, state, support)
        return params

    def predict(
        self, state: FastWeights, inputs: Inputs, mask: Bool[Tensor, "tasks m"] | None = None
    ) -> Float[Tensor, "tasks m way"]:
        """Outputs of each task's adapted network."""
        with parameters_exchanged():
            return self.map_tasks(self.predict_one_task, inputs, state, inputs, mask)

    @property
    def policy(self) -> BatchNormPolicy:
        """The BatchNorm policy in force."""
        return self.batch_norm

    @property
    def first_order(self) -> bool:
        """Whether inner gradients are constants."""
        return self._first_order

    def trajectory(
        self, start: Params, support: Examples, present: Bool[Tensor, " way"]
    ) -> Iterator[Params]:
        """What one task's network has in place of its own tensors, after 0, 1, ... steps."""
        network = self.network_outputs
        if self.steps_move_the_head_alone:
            support, network = self._embedded(support), self._head_outputs
        loss = partial(self._inner_loss, start, support, present, network=network)
        steps = inner_loop(loss, start, self.rule, self._num_steps, first_order=self.first_order)
        for step, params in enumerate(steps):
            yield params | self.beside(step)

    @property
    def _num_steps(self) -> int:
        return self.num_inner_steps if self.training else self.num_test_steps or 0

    @property
    def _batch_size(self) -> int:
        return self.inner_batch_size if self.training else self.test_batch_size

    def _of_a_step(self, inputs: Inputs) -> Inputs:
        """As many of the support inputs (tasks, n, *shape) as a step sees."""
        size = self._batch_size
        return map_tensors(lambda tensor: tensor[:, :size], inputs) if size else inputs

    def _inner_loss(
        self,
        start: Params,
        support: Examples,
        present: Bool[Tensor, " way"],
        params: Params,
        step: int,
        network: Network | None = None,
    ) -> Float[Tensor, ""]:
        """What a step of one task minimizes, having begun at `start`."""
        examples = _minibatch(support, step, self._batch_size, self.loss.kind)
        loss = self.support_loss(params | self.beside(step), examples, present, network)
        return loss + self.regularization(params, start)

    def support_loss(
        self,
        params: Params,
        examples: Examples,
        present: Bool[Tensor, " way"],
        network: Network | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of one task's support examples; of their embeddings, where `network` says so."""
        network = network or self.network_outputs
        outputs = apply_to_support(
            lambda inputs: network(params, inputs, len(present)),
            self.policy,
            examples.inputs,
            examples.mask,
        )
        return self.loss(mask_absent(outputs, present), examples.targets, examples.mask)

    @property
    def steps_move_the_head_alone(self) -> bool:
        """Whether what is beneath the head is the same at every step, so that once is enough."""
        head_alone = all(name.startswith("head.") for name in self.adapted)
        whole = not self._batch_size  # a minibatch would have statistics of its own
        return isinstance(self.net, WithHead) and head_alone and whole and not self.beside(0)

    def over_embeddings(self) -> "FastWeightLearner":
        """This learner for inputs that the encoder beneath its head has embedded."""
        twin = copy.copy(self)
        net = copy.copy(self.net)
        net._modules = {**net._modules, "encoder": nn.Identity()}
        twin._modules = {**self._modules, "net": net}
        twin._flops = {}
        return twin

    def _embedded(self, support: Examples) -> Examples:
        """One task's support set with embeddings as its inputs."""
        assert isinstance(self.net, WithHead)
        inputs = apply_to_support(self.net.encoder, self.policy, support.inputs, support.mask)
        return support._replace(inputs=inputs)

    def _head_outputs(self, params: Params, inputs: Inputs, way: int) -> Float[Tensor, "n way"]:
        """`network_outputs` of embeddings."""
        assert isinstance(self.net, WithHead)
        head = {name.removeprefix("head."): value for name, value in params.items()}
        return _columns(torch.func.functional_call(self.net.head, head, (inputs,)), way)

    def predict_one_task(
        self, state: FastWeights, inputs: Inputs, mask: Bool[Tensor, " m"] | None
    ) -> Float[Tensor, "m way"]:
        """`predict` for one task, without the leading dimension of tasks."""
        return apply_to_query(
            lambda inputs: self.network_outputs(state.params, inputs, len(state.present)),
            self.policy,
            inputs,
            mask,
            state.support_inputs,
            state.support_mask,
        )

    def map_tasks(self, function: Callable[..., Any], inputs: Inputs, *trees: Any) -> Any:
        """Compute a function of one task for all tasks, by the strategy that suits the inputs."""
        strategy = self._choose(inputs) if self.strategy == "auto" else self.strategy
        return map_tasks(function, *trees, strategy=strategy, chunk_size=self.chunk_size or None)

    def _choose(self, inputs: Inputs) -> Literal["vmap", "loop"]:
        """The strategy for tasks of some inputs (tasks, n, *shape)."""
        tensors = leaves(inputs)
        compiled = being_traced() or torch.compiler.is_compiling()
        if compiled or tensors[0].device.type != "cpu" or not len(tensors[0]):
            return "vmap"
        shapes = tuple(leaf.shape[1:] for leaf in tensors)
        if shapes not in self._flops:
            one_task = map_tensors(lambda leaf: leaf[0], inputs)
            self._flops[shapes] = forward_flops(self.net, one_task)
        return choose_strategy(self._flops[shapes])

    def network_outputs(self, params: Params, inputs: Inputs, way: int) -> Float[Tensor, "n way"]:
        """The network's outputs with a task's parameters, the first `way` of its columns."""
        return _columns(torch.func.functional_call(self.net, params, (inputs,)), way)


def _columns(outputs: Tensor, way: int) -> Float[Tensor, "n way"]:
    """The first `way` columns of a network's outputs for one task, which has to have them."""
    if outputs.dim() != 2 or outputs.shape[1] < way:
        raise ValueError(
            f"The network gave outputs of shape {tuple(outputs.shape)} for one task; expected "
            f"(examples, at least {way}): one column for each of the episode's {way} classes "
            "or outputs. Give the network more outputs, or draw episodes of a smaller way."
        )
    return outputs[:, :way]


_LOCK = threading.RLock()


def parameters_exchanged() -> AbstractContextManager[object]:
    """Within: functional_call may put a task's parameters into the network; no other thread does.

    So threads can share a learner.
    """
    return nullcontext() if torch.compiler.is_compiling() else _LOCK


def adapted_params(net: nn.Module, patterns: tuple[str, ...] = ("*",)) -> Params:
    """The parameters of a network that inner steps move: not frozen, and named by a pattern.

    Args:
        net: the network.
        patterns: names as `named_parameters` has them, "*" for any text: "head.*" is the head.

    Raises:
        ValueError: when a pattern names no parameter, or all that are named are frozen.
    """
    names = [name for name, _ in net.named_parameters()]
    for pattern in patterns:
        if names and not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"adapted={pattern!r} names no parameter of the network; it has {', '.join(names)}."
            )
    found: Params = {
        name: value
        for name, value in net.named_parameters()
        if value.requires_grad and any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    if names and not found:
        raise ValueError(
            f"adapted={patterns!r} leaves nothing to adapt: all of it is frozen "
            "(requires_grad_(False))."
        )
    return found


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
