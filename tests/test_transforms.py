"""What surrounds the operations of a moment is told."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from kshot.transforms import being_traced, being_transformed, being_vectorized

Answers = tuple[bool, bool, bool]
Around = Callable[[Callable[[Tensor], Tensor], Tensor], object]


def compiled(function: Callable[[Tensor], Tensor], x: Tensor) -> object:
    return torch.compile(function, backend="eager")(x)


SURROUNDINGS: dict[str, tuple[Around, Answers]] = {
    "nothing": (lambda function, x: function(x), (False, False, False)),
    "grad": (lambda function, x: torch.func.grad(function)(x[0]), (False, True, False)),
    "vmap": (lambda function, x: torch.func.vmap(function)(x), (False, True, True)),
    "vmap of grad": (
        lambda function, x: torch.func.vmap(torch.func.grad(function))(x),
        (False, True, True),
    ),
    "a tracer": (lambda function, x: make_fx(function)(x), (True, True, False)),
    "vmap in a tracer": (
        lambda function, x: make_fx(torch.func.vmap(function))(x),
        (True, True, True),
    ),
    "a compiler": (compiled, (False, True, True)),
}


@pytest.mark.parametrize(("around", "expected"), SURROUNDINGS.values(), ids=list(SURROUNDINGS))
def test_surroundings_are_told(around: Around, expected: Answers):
    answers: list[Answers] = []

    def function(x: Tensor) -> Tensor:
        answers.append((being_traced(), being_transformed(), being_vectorized()))
        return x.square().sum()

    around(function, torch.ones(3, 2))
    assert answers == [expected]
    assert not being_transformed()


def test_where_pytorch_does_not_tell_the_general_way_is_taken(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(torch._C._functorch, "get_interpreter_stack")
    assert being_transformed() and being_vectorized()
