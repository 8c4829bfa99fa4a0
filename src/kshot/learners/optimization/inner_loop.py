"""The inner loop, written once: unroll an update rule on the loss of one task."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from kshot.learners.optimization.update_rules import Params, RuleState, UpdateRule
from kshot.transforms import being_transformed

__all__ = ["checked_steps", "inner_loop", "inner_step"]


def inner_loop(
    loss: Callable[[Params, int], Float[Tensor, ""]],
    params: Params,
    rule: UpdateRule,
    num_steps: int,
    *,
    first_order: bool = False,
) -> Iterator[Params]:
    """Unroll an update rule from some parameters.

    The trajectory stays a differentiable function of `params` and of the rule's own parameters, to
    any order. It also runs under `torch.no_grad` (adaptation without meta-training) and under
    `torch.func.vmap` (one call for many tasks).

    Args:
        loss: the loss of the parameters at a step 0 .. num_steps - 1.
        params: where to start; gradients are taken of all of them.
        rule: how gradients move parameters.
        num_steps: number of steps.
        first_order: treat the gradients as constants, so that nothing is differentiated twice.

    Yields:
        The parameters before the first step and after each: num_steps + 1 of them. Multi-step
        losses read them all; who takes the last alone keeps no others in memory.

    Example:
        >>> from kshot.learners.optimization.update_rules import SGD
        >>> def loss(params, step):
        ...     return (params["x"] ** 2).sum()
        >>> steps = inner_loop(loss, {"x": torch.tensor([1.0])}, SGD(lr=0.25), 2)
        >>> [params["x"].item() for params in steps]
        [1.0, 0.5, 0.25]
    """
    state = rule.init(params)
    yield params
    for step in range(num_steps):

        def loss_at_step(params: Params, step: int = step) -> Tensor:
            return loss(params, step)

        params, state = inner_step(loss_at_step, params, rule, state, first_order=first_order)
        yield params


def inner_step(
    loss: Callable[[Params], Float[Tensor, ""]],
    params: Params,
    rule: UpdateRule,
    state: RuleState,
    *,
    first_order: bool = False,
) -> tuple[Params, RuleState]:
    """One step of the inner loop: the parameters and the rule's state after it."""
    # grad computes under no_grad as usual, but leaves nothing for an outer backward.
    constant = torch.no_grad() if first_order else nullcontext()
    # Fused attention kernels have no second derivative.
    with constant, nullcontext() if first_order else sdpa_kernel(SDPBackend.MATH):
        grads, value = _grad_and_value(loss, params)
    return rule.step(params, grads, state, loss=value)


def _grad_and_value(
    loss: Callable[[Params], Float[Tensor, ""]], params: Params
) -> tuple[Params, Float[Tensor, ""]]:
    """`torch.func.grad_and_value`, by plain autograd where it may: operations cost less there."""
    if being_transformed() or torch.is_inference_mode_enabled():
        return torch.func.grad_and_value(loss)(params)
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        # Tensors of their own: what the loss reads besides them is constant.
        inputs = {name: _variable(value, differentiable) for name, value in params.items()}
        value = loss(inputs)
        grads = torch.autograd.grad(
            value, list(inputs.values()), create_graph=differentiable, materialize_grads=True
        )
    return dict(zip(inputs, grads, strict=True)), value if differentiable else value.detach()


def _variable(value: Tensor, differentiable: bool) -> Tensor:
    if differentiable and value.requires_grad:
        return value.view_as(value)
    return value.detach().requires_grad_()


def checked_steps(num_inner_steps: int, num_test_steps: int | None) -> tuple[int, int]:
    """The inner steps of meta-training and of evaluation, where None stands for as many.

    Raises:
        ValueError: for fewer than none.
    """
    steps = num_inner_steps, num_inner_steps if num_test_steps is None else num_test_steps
    if min(steps) < 0:
        raise ValueError(f"A learner takes 0 or more inner steps, not {min(steps)}.")
    return steps
