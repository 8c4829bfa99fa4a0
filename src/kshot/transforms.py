"""What surrounds the operations of this moment: a tracer, `torch.func`, an unfinished outer step.

Code that has a faster way outside of PyTorch's transformations asks here; where PyTorch does not
tell, the answer is the one under which the general way is taken. Learners that count outer steps
ask whether a meta-loss is the last of one.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import get_proxy_mode

__all__ = [
    "being_traced",
    "being_transformed",
    "being_vectorized",
    "ends_outer_step",
    "part_of_outer_step",
]


def being_traced() -> bool:
    """Whether operations are recorded to a graph, as for a compiled meta-gradient."""
    return get_proxy_mode() is not None


def being_transformed() -> bool:
    """Whether a `torch.func` transformation is under way, or may be."""
    return being_traced() or _transforms() != []


def being_vectorized() -> bool:
    """Whether `torch.func.vmap` is under way, or may be."""
    transforms = _transforms()
    return transforms is None or any(each.key().name == "Vmap" for each in transforms)


def ends_outer_step() -> bool:
    """Whether an outer step follows this meta-loss; not so for a micro-batch before the last."""
    return not _PART.get()


@contextlib.contextmanager
def part_of_outer_step() -> Iterator[None]:
    """Within: a meta-loss is of a part of the meta-batch, and another part follows."""
    token = _PART.set(True)
    try:
        yield
    finally:
        _PART.reset(token)


_PART = contextvars.ContextVar("part_of_outer_step", default=False)


def _transforms() -> list[Any] | None:
    """The transformations under way; None where that is not known."""
    functorch: Any = getattr(torch._C, "_functorch", None)  # torch.func does not tell
    if torch.compiler.is_compiling() or not hasattr(functorch, "get_interpreter_stack"):
        return None
    return functorch.get_interpreter_stack() or []
