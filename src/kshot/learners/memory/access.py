"""A step of a memory written where it is used least and read by content, with its own gradient."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["Access", "access"]

_LEAST = 1e-8
"""Keeps an empty slot, or an empty key, from dividing by zero."""


class Access(NamedTuple):
    """A memory after a step.

    Attributes:
        memory: (tasks, slots, width).
        weights: (tasks, heads, slots) where each head read.
        usage: (tasks, slots), of which no gradient is taken.
        reads: (tasks, heads, width) what each head read.
    """

    memory: Float[Tensor, "tasks slots width"]
    weights: Float[Tensor, "tasks heads slots"]
    usage: Float[Tensor, "tasks slots"]
    reads: Float[Tensor, "tasks heads width"]


def access(
    memory: Float[Tensor, "tasks slots width"],
    weights: Float[Tensor, "tasks heads slots"],
    usage: Float[Tensor, "tasks slots"],
    keys: Float[Tensor, "tasks heads width"],
    gates: Float[Tensor, "tasks heads 1"],
    decay: float,
) -> Access:
    """Write keys to a memory, look for them, and read.

    Args:
        memory: before it.
        weights: where each head read last.
        usage: of the slots.
        keys: what each head writes, and looks for.
        gates: whether each writes where it read last (1), or where the memory is used least (0).
        decay: of the usage.
    """
    least_used = usage.topk(keys.shape[1], largest=False).indices
    after, reading, reads, writing = _WriteAndRead.apply(memory, weights, least_used, keys, gates)
    usage = decay * usage + (reading.detach() + writing).sum(1)
    return Access(after, reading, usage, reads)


class _WriteAndRead(torch.autograd.Function):
    """What `access` computes, with a backward pass by hand.

    A step is small: what it costs is the number of operations, and how often the memory, by far
    the largest of its tensors, is read and written. Here one such tensor is kept for each step, the
    memory afterwards; automatic differentiation keeps what each operation reads.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        memory: Tensor,
        weights: Tensor,
        least_used: Int[Tensor, "tasks heads"],
        keys: Tensor,
        gates: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The memory, where each head read, what it read, and where it wrote."""
        free = torch.zeros_like(weights).scatter(2, least_used.unsqueeze(2), 1)
        writing = torch.lerp(free, weights, gates)
        after = torch.baddbmm(_cleared(memory, least_used), writing.mT, keys)
        similarities = (keys @ after.mT).div_(_lengths(keys, after))
        reading = similarities.softmax(-1)
        return after, reading, reading @ after, writing

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        """Keep what the backward pass reads: of the memory, only how it is afterwards."""
        _, weights, least_used, keys, gates = inputs
        after, reading, _, writing = output
        ctx.mark_non_differentiable(writing)
        ctx.save_for_backward(after, reading, writing, weights, least_used, keys, gates)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_after: Tensor, d_reading: Tensor, d_reads: Tensor, _: Tensor
    ) -> tuple[Tensor, Tensor, None, Tensor, Tensor]:
        """From the last formula of `MANN` to the first."""
        after, reading, writing, weights, least_used, keys, gates = ctx.saved_tensors
        d_reading = d_reading + d_reads @ after.mT
        d_similarities = reading * (d_reading - (reading * d_reading).sum(-1, keepdim=True))
        # Cosines a . b / (|a| |b|): first the product, then the lengths.
        key_length, slot_length = _length(keys), _length(after).mT
        product = key_length * slot_length + _LEAST
        d_products = d_similarities / product
        d_lengths = -d_products * (keys @ after.mT) / product
        d_key_length = (d_lengths * slot_length).sum(-1, keepdim=True)
        d_slot_length = (d_lengths * key_length).sum(1, keepdim=True)
        tiny = torch.finfo(keys.dtype).tiny
        read = torch.cat([reading, d_products], 1).mT
        d_after = torch.baddbmm(d_after, read, torch.cat([d_reads, keys], 1))
        by_length = (d_slot_length / slot_length.clamp_min(tiny)).mT
        d_after = torch.addcmul(d_after, after, by_length)
        d_keys = d_products @ after + keys * (d_key_length / key_length.clamp_min(tiny))
        d_keys = torch.baddbmm(d_keys, writing, d_after)
        d_writing = keys @ d_after.mT
        free = d_writing.gather(2, least_used.unsqueeze(2))
        d_gates = (d_writing * weights).sum(-1, keepdim=True) - free
        return _cleared(d_after, least_used), d_writing * gates, None, d_keys, d_gates


def _length(rows: Float[Tensor, "tasks n width"]) -> Float[Tensor, "tasks n 1"]:
    return torch.linalg.vector_norm(rows, dim=-1, keepdim=True)


def _lengths(keys: Tensor, memory: Tensor) -> Float[Tensor, "tasks heads slots"]:
    return _length(keys) * _length(memory).mT + _LEAST


def _cleared(
    memory: Float[Tensor, "tasks slots width"], least_used: Int[Tensor, "tasks heads"]
) -> Float[Tensor, "tasks slots width"]:
    """With zeros in the first of the least used slots."""
    place = least_used[:, :1].unsqueeze(2).expand(-1, -1, memory.shape[2])
    return memory.scatter(1, place, 0)
