"""The end of an encoder's network: its last block and what follows, cut off from the rest."""

import copy
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from kshot.encoders.encoder import Encoder, record_failures
from kshot.encoders.picture_encoder import PictureEncoder
from kshot.encoders.text_encoder import TextEncoder
from kshot.episodes import leaves, map_tensors, with_leaves

__all__ = ["Activations", "LastBlock", "last_block_name"]

Activations = dict[str, Tensor]
"""What enters the last block, and what else its output depends on: tensors (n, ...)."""


class _Run(NamedTuple):
    """What was seen of one call of a network, to be run again from its last block on.

    Tensors with a row for each example are kept without their rows. Arguments are pairs:
    positional ones, and those by name.

    Attributes:
        block: the arguments of the last block.
        network: those of the network.
        before: what modules gave that were done before the block began, in the order of their
            calls; those that were called by another such module are left out.
    """

    block: tuple[tuple[Any, ...], dict[str, Any]]
    network: tuple[tuple[Any, ...], dict[str, Any]]
    before: dict[str, list[Any]]


class LastBlock:
    """The end of a frozen encoder, from what enters its last block to embeddings.

    What comes before is computed once: `activations` of inputs. `embed` computes the rest, with
    weights that may be others than the network's, and gradients pass through. So the end can be
    trained on a few examples at a fraction of the cost of the whole.

    The network runs as it is, whatever its code: modules that are done before the last block begins
    are passed over, and the block is given the activations instead of what reaches it. That the
    same embeddings come out is checked.

    Args:
        encoder: of pictures or texts, whose network is a `torch.nn.Module`.
        block: the name of the block's module; by default `last_block_name` finds it.

    Raises:
        ValueError: when the network is no module, or has no such block.

    Example:
        >>> layers = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 4, 3))
        >>> net = nn.Sequential(layers, nn.AdaptiveAvgPool2d(1))
        >>> encoder = PictureEncoder(net, size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
        >>> end = LastBlock(encoder)
        >>> activations = end.activations([torch.zeros(8, 8, 3, dtype=torch.uint8).numpy()])
        >>> end.embed(activations).shape, sorted(end.parameters)
        (torch.Size([1, 4]), ['0.1.bias', '0.1.weight'])
    """

    def __init__(self, encoder: Encoder, block: str | None = None) -> None:
        known = isinstance(encoder, PictureEncoder | TextEncoder)
        module = encoder.network.module if known else None
        if not known or module is None:
            raise ValueError(
                "Only a network that is a torch.nn.Module has a last block to tune, and that of "
                f"{encoder.spec or type(encoder).__name__} is none. Take another head."
            )
        self.encoder = encoder
        self._source, self._net = module, copy.deepcopy(module)
        self.name = last_block_name(module) if block is None else block
        if self.name not in dict(module.named_modules()):
            raise ValueError(f"The network has no module {self.name!r}.")
        self.parameters: dict[str, Tensor] = {}
        """The weights of the end, by their names in the network; known once inputs were read."""
        self._runs: dict[tuple, _Run] = {}

    def activations(self, inputs: Sequence[Any]) -> Activations:
        """What enters the last block for inputs of the encoder, in their order.

        Raises:
            ValueError: when an input cannot be read, and when the network cannot be cut here.
        """
        if len(inputs) == 1:
            # Of one example alone it cannot be told which tensors have a row for each.
            twice = self.activations([inputs[0]] * 2)
            return {name: tensor[:1] for name, tensor in twice.items()}
        # Texts that are read together are padded to the same length.
        together = len(inputs) if isinstance(self.encoder, TextEncoder) else self.encoder.batch_size
        order: list[int] = []
        parts: list[list[Tensor]] = []
        names: list[str] = []
        with _recorded(self._source, self.name) as runs:
            for places, embeddings, failures in self.encoder.embed_batches(inputs, together):
                record_failures(failures, None)
                if embeddings is not None:
                    if not runs:
                        raise ValueError(f"The network does not use its module {self.name!r}.")
                    run = runs.pop()
                    names = names or self._learn(run, embeddings)
                    tensors = leaves(run[:2])
                    parts.append([tensors[int(name)].clone() for name in names])
                    order += places
        back = torch.tensor(order).argsort()
        rows = (torch.cat(part)[back] for part in zip(*parts, strict=True))
        return dict(zip(names, rows, strict=True))

    def embed(
        self, activations: Activations, weights: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "n dim"]:
        """Embeddings of activations.

        Args:
            activations: n rows of what `activations` gave.
            weights: some or all of `parameters`, to be used instead of the network's own.
        """
        run = self._runs[_shapes(activations)]
        n = len(next(iter(activations.values())))
        filled = map_tensors(partial(_with_rows, n), run)
        given = [
            activations.get(str(place), tensor) for place, tensor in enumerate(leaves(filled[:2]))
        ]
        block, (positional, named) = with_leaves(tuple(filled[:2]), given)
        with _passed_over(self._net, self.name, block, filled.before):
            output = functional_call(self._net, dict(weights or {}), positional, named)
        return self.encoder.pooled(output, **named)

    def _learn(self, run: _Run, embeddings: Float[Tensor, "n dim"]) -> list[str]:
        """Which tensors of a run are the activations; the rest is kept to run the end again.

        Of what the network reads only integers and truth values are kept, such as masks of tokens.
        """
        n, num_block = len(embeddings), len(leaves(run.block))
        found = {
            str(place): tensor.clone()
            for place, tensor in enumerate(leaves(run[:2]))
            if _is_of(n, tensor) and (place < num_block or not tensor.is_floating_point())
        }
        self._runs[_shapes(found)] = map_tensors(partial(_without_rows, n), run)
        if not self.parameters:
            self._check(found, embeddings.clone())
        return list(found)

    def _check(self, activations: Activations, embeddings: Float[Tensor, "n dim"]) -> None:
        """See that the end, run alone, gives the same embeddings, and which weights it uses."""
        rows = max(1, len(embeddings) - 1)  # another number, to find what has a row for each
        weights = dict(self._net.named_parameters())
        self._net.requires_grad_(True)
        try:
            with torch.enable_grad():
                found = self.embed({name: tensor[:rows] for name, tensor in activations.items()})
            used = torch.autograd.grad(found.sum(), list(weights.values()), allow_unused=True)
        except Exception as error:  # whatever the network raises at its placeholders
            raise ValueError(f"{self._cannot_be_cut}: {error}") from error
        finally:
            self._net.requires_grad_(False)
        scale = float(embeddings.abs().max())
        if not torch.allclose(found, embeddings[:rows], rtol=1e-3, atol=1e-4 * scale):
            raise ValueError(f"{self._cannot_be_cut}: other embeddings come out.")
        self.parameters = {
            name: weight.detach()
            for (name, weight), slope in zip(weights.items(), used, strict=True)
            if slope is not None
        }

    @property
    def _cannot_be_cut(self) -> str:
        return (
            f"The network cannot be run from its module {self.name!r} on. Name another block, or "
            "take another head"
        )


def last_block_name(net: nn.Module) -> str:
    """The last of the modules that a network repeats: its last residual block, say.

    Of the outermost containers with two modules of the same class, the last one's last such
    module; of a stage that is a container itself, its last block. Layers count only where there
    are no blocks of layers.

    Raises:
        ValueError: when a network repeats nothing.

    Example:
        >>> last_block_name(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)))
        '2'
    """
    blocks: list[str] = []
    layers: list[str] = []
    for name, container in net.named_modules():
        if not isinstance(container, nn.Sequential | nn.ModuleList):
            continue
        if any(name.startswith(f"{block}.") for block in blocks):
            continue  # within a block
        children = [
            (f"{name}.{key}".lstrip("."), child)
            for key, child in container.named_children()
            if not isinstance(child, nn.ModuleList | nn.ModuleDict)
            and any(weight.ndim > 1 for weight in child.parameters())
        ]
        kinds = Counter(type(child) for _, child in children)
        repeated = [(path, child) for path, child in children if kinds[type(child)] > 1]
        blocks += [path for path, child in repeated if len(list(child.children())) > 1]
        layers += [path for path, _ in repeated]
    if not layers:
        raise ValueError(
            "The network repeats no block, so that its last one cannot be told: name one of "
            f"{', '.join(name for name, _ in net.named_children())}."
        )
    return (blocks or layers)[-1]


@contextmanager
def _recorded(net: nn.Module, block: str) -> Iterator[list[_Run]]:
    """What each call of a network is seen to do, until its block begins."""
    runs: list[_Run] = []
    arguments: dict[str, Any] = {}
    open_calls: list[list[tuple[str, Any]]] = []  # of each module at work, what it has called

    def begin(name: str, _: nn.Module, positional: tuple, named: dict[str, Any]) -> None:
        if name == "":
            arguments.clear()
            open_calls[:] = [[]]
        elif block not in arguments:
            open_calls.append([])
        if name in ("", block):
            arguments.setdefault(name, (positional, named))

    def end(name: str, _: nn.Module, __: tuple, output: Any) -> None:
        if block not in arguments:
            open_calls.pop()
            if open_calls:
                open_calls[-1].append((name, output))
        elif name == "":
            before = defaultdict(list)
            for called, given in (call for calls in open_calls for call in calls):
                before[called].append(given)
            runs.append(_Run(arguments[block], arguments[""], dict(before)))

    with ExitStack() as hooks:
        for name, module in net.named_modules():
            before = module.register_forward_pre_hook(partial(begin, name), with_kwargs=True)
            hooks.callback(before.remove)
            hooks.callback(module.register_forward_hook(partial(end, name)).remove)
        yield runs


@contextmanager
def _passed_over(
    net: nn.Module, block: str, arguments: tuple, before: dict[str, list[Any]]
) -> Iterator[None]:
    """Let a network pass over what was done before its block, and give that its arguments."""
    reached = False
    waiting = {name: iter(outputs) for name, outputs in before.items()}

    def instead(name: str, own: Callable, *positional: Any, **named: Any) -> Any:
        nonlocal reached
        if reached:
            return own(*positional, **named)
        if name != block:
            return next(waiting[name])
        reached = True
        return own(*arguments[0], **arguments[1])

    with ExitStack() as patches:
        for name in (*before, block):
            module = net.get_submodule(name)
            patches.enter_context(_replaced(module, partial(instead, name, module.forward)))
        yield


@contextmanager
def _replaced(module: nn.Module, forward: Callable) -> Iterator[None]:
    """A module that computes something else for a while."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def _is_of(n: int, tensor: Tensor) -> bool:
    """Whether a tensor looks as if it had a row for each of n examples."""
    return tensor.ndim > 0 and len(tensor) == n


def _without_rows(n: int, tensor: Tensor) -> Tensor:
    return tensor.new_empty(0, *tensor.shape[1:]) if _is_of(n, tensor) else tensor.clone()


def _with_rows(n: int, tensor: Tensor) -> Tensor:
    """Placeholders for rows that were left out."""
    if not _is_of(0, tensor):
        return tensor
    return tensor.new_zeros(1, *tensor.shape[1:]).expand(n, *tensor.shape[1:])


def _shapes(activations: Activations) -> tuple:
    return tuple((name, tuple(tensor.shape[1:])) for name, tensor in activations.items())
