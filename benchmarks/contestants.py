"""Who takes part in the benchmark of the inner loop: kshot, a plain loop over tasks, the peers.

Each is a function of a case, a network and episodes that gives the step to be timed.
"""

import copy
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from kshot import MAML, Episodes, Examples, evaluate
from kshot.backbones.heads import WithHead
from kshot.backbones.normalization import BatchNorm
from kshot.episodes import leaves, map_tensors
from kshot.losses import Loss, cross_entropy
from kshot.training.compiled import CompiledMetaLoss

__all__ = [
    "ADAPTATIONS",
    "COMPILED",
    "CONTESTANTS",
    "DEVICE",
    "FOR_TRAINING",
    "PACKAGES",
    "PEERS",
    "PLAIN",
    "Case",
    "Step",
    "build",
]

Step = Callable[[], list[Tensor]]
"""Does the work that is timed; gives the meta-gradient, or each episode's score in evaluation."""

Adapt = Callable[[Tensor, Tensor, bool], Callable[[Tensor], Tensor]]
"""What a peer makes of one support set, with second order or without: the adapted network."""


@dataclass(frozen=True)
class Case:
    """What every contestant computes; `support` and `query` count a task's examples."""

    encoder: Callable[[], nn.Module]
    shape: tuple[int, ...]
    tasks: int
    way: int
    support: int
    query: int
    num_steps: int
    inner_lr: float
    loss: Loss = cross_entropy
    evaluation: bool = False


DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PLAIN = "plain loop"


def build(case: Case, contestant: str, dtype: torch.dtype = torch.float32) -> Step:
    """A contestant's step, from the same weights and on the same episodes as every other's."""
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32
    torch.manual_seed(0)
    net = WithHead(case.encoder(), case.way).to(DEVICE, dtype)
    return CONTESTANTS[contestant](case, net, _episodes(case).to(DEVICE, dtype))


def _episodes(case: Case) -> Episodes:
    """Seeded random inputs: only the work counts."""
    generator = torch.Generator().manual_seed(0)

    def draw(examples: int) -> Examples:
        inputs = torch.randn(case.tasks, examples, *case.shape, generator=generator)
        if case.loss.kind == "regression":
            return Examples(inputs, torch.randn(case.tasks, examples, 1, generator=generator))
        targets = torch.eye(case.way)[torch.arange(examples) % case.way]
        return Examples(inputs, targets.expand(case.tasks, -1, -1))

    columns = torch.arange(case.way).expand(case.tasks, -1)
    classes = None if case.loss.kind == "regression" else columns
    return Episodes(draw(case.support), draw(case.query), classes)


class _Drawn:
    """A sampler of episodes that were drawn before, so that drawing is not timed."""

    def __init__(self, episodes: Episodes) -> None:
        self.episodes = episodes

    def sample(self, episodes: Sequence[int] | np.ndarray) -> Episodes:
        """The episodes of some consecutive indices."""
        first, last = int(episodes[0]), int(episodes[-1])
        return map_tensors(lambda tensor: tensor[first : last + 1], self.episodes)


def _torch_network(net: nn.Module) -> nn.Module:
    """The same network and weights with PyTorch's own, fused BatchNorm, on the batch's statistics.

    It keeps the rest of kshot's backbone, whose pooling comes before the ReLU and whose pooled
    kernels have their channels innermost: that is no slower, and the inner loop alone is compared.
    """
    net = copy.deepcopy(net)
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, BatchNorm):
                fused = nn.BatchNorm2d(child.num_features, child.eps, track_running_stats=False)
                fused.weight, fused.bias = child.weight, child.bias
                setattr(module, name, fused)
    return net


def _torch_loss(case: Case) -> Callable[[Tensor, Tensor], Tensor]:
    return F.mse_loss if case.loss.kind == "regression" else F.cross_entropy


def _torch_examples(examples: Examples) -> list[tuple[Tensor, Tensor]]:
    """Inputs and labels (or values) of each task."""
    rows = examples.targets
    targets = rows if rows.shape[-1] == 1 else rows.argmax(-1)
    return list(zip(*leaves((examples.inputs, targets)), strict=True))


def _kshot(case: Case, net: nn.Module, **options: Any) -> MAML:
    learner = MAML(
        net,
        inner_lr=case.inner_lr,
        num_inner_steps=case.num_steps,
        loss=case.loss,
        **options,
    )
    return learner.to(DEVICE).train()


def _eager(case: Case, net: nn.Module, episodes: Episodes, **options: Any) -> Step:
    learner = _kshot(case, net, **options)
    if case.evaluation:
        sampler = _Drawn(episodes)
        return lambda: [torch.from_numpy(evaluate(learner, sampler, case.tasks).scores)]
    return _backward(lambda: learner(episodes).backward(), list(net.parameters()))


def _chunked(case: Case, net: nn.Module, episodes: Episodes) -> Step:
    return _eager(case, net, episodes, strategy="vmap", chunk_size=-(-case.tasks // 4))


def _in_micro_batches(
    case: Case, net: nn.Module, episodes: Episodes, size: int, compiled: bool = False
) -> Step:
    """As `kshot train --training.micro-batch-size SIZE`, with `--training.compile` or without."""
    learner = _kshot(case, net)
    loss = CompiledMetaLoss(learner) if compiled else learner

    def backward() -> None:
        for first in range(0, case.tasks, size):
            few = map_tensors(lambda tensor, first=first: tensor[first : first + size], episodes)
            (loss(few) * (len(few.support.targets) / case.tasks)).backward()

    return _backward(backward, list(net.parameters()))


def _compiled_gradient(case: Case, net: nn.Module, episodes: Episodes) -> Step:
    """As `kshot train --training.compile`: one graph with both derivatives in it."""
    return _in_micro_batches(case, net, episodes, case.tasks, compiled=True)


def _peer(case: Case, net: nn.Module, episodes: Episodes, peer: str) -> Step:
    """The loop over tasks that a peer's users write, one backward pass a task."""
    net = _torch_network(net)
    start = list(net.parameters())
    adapt = ADAPTATIONS[peer](case, net)
    loss = _torch_loss(case)
    support, query = map(_torch_examples, (episodes.support, episodes.query))

    def backward() -> None:
        for task, asked in zip(support, query, strict=True):
            inputs, targets = asked
            (loss(adapt(*task, True)(inputs), targets) / len(support)).backward()

    def scores() -> list[Tensor]:
        found = []
        for task, (inputs, labels) in zip(support, query, strict=True):
            network = adapt(*task, False)
            with torch.no_grad():
                found.append((network(inputs).argmax(-1) == labels).double().mean())
        return [torch.stack(found)]

    return scores if case.evaluation else _backward(backward, start)


def _backward(compute: Callable[[], None], parameters: list[nn.Parameter]) -> Step:
    """A step that leaves gradients on the parameters."""

    def step() -> list[Tensor]:
        for parameter in parameters:
            parameter.grad = None
        compute()
        return [p.grad for p in parameters if p.grad is not None]

    return step


def _adapt_by_plain_loop(case: Case, net: nn.Module) -> Adapt:
    start, loss = dict(net.named_parameters()), _torch_loss(case)

    def adapt(inputs: Tensor, targets: Tensor, second_order: bool) -> Callable[[Tensor], Tensor]:
        params: dict[str, Any] = start
        for _ in range(case.num_steps):
            value = loss(functional_call(net, params, (inputs,)), targets)
            grads = torch.autograd.grad(value, list(params.values()), create_graph=second_order)
            moved = zip(params.items(), grads, strict=True)
            params = {name: p - case.inner_lr * grad for (name, p), grad in moved}
        return lambda inputs: functional_call(net, params, (inputs,))

    return adapt


def _adapt_by_higher(case: Case, net: nn.Module) -> Adapt:
    higher, loss = importlib.import_module("higher"), _torch_loss(case)
    sgd = torch.optim.SGD(net.parameters(), lr=case.inner_lr)

    def adapt(inputs: Tensor, targets: Tensor, second_order: bool) -> Callable[[Tensor], Tensor]:
        with higher.innerloop_ctx(
            net, sgd, copy_initial_weights=False, track_higher_grads=second_order
        ) as (network, optimizer):
            for _ in range(case.num_steps):
                optimizer.step(loss(network(inputs), targets))
        return network

    return adapt


def _adapt_by_torchopt(case: Case, net: nn.Module) -> Adapt:
    torchopt, loss = importlib.import_module("torchopt"), _torch_loss(case)
    optimizer = torchopt.MetaSGD(net, lr=case.inner_lr)
    start = torchopt.extract_state_dict(net, by="reference")
    optimizer_start = torchopt.extract_state_dict(optimizer, by="reference")

    def adapt(inputs: Tensor, targets: Tensor, second_order: bool) -> Callable[[Tensor], Tensor]:
        # It moves the network itself, and keeps the second order whether it is needed or not.
        torchopt.recover_state_dict(net, start)
        torchopt.recover_state_dict(optimizer, optimizer_start)
        for _ in range(case.num_steps):
            optimizer.step(loss(net(inputs), targets))
        return net

    return adapt


ADAPTATIONS: dict[str, Callable[[Case, nn.Module], Adapt]] = {
    PLAIN: _adapt_by_plain_loop,
    "higher": _adapt_by_higher,
    "TorchOpt": _adapt_by_torchopt,
}
PACKAGES = {"higher": "higher", "TorchOpt": "torchopt"}
PEERS = tuple(
    peer
    for peer in ADAPTATIONS
    if peer not in PACKAGES or importlib.util.find_spec(PACKAGES[peer]) is not None
)
# They bound the memory of meta-training: `evaluate` takes few episodes at once.
FOR_TRAINING = (
    "kshot vmap, 4 chunks",
    "kshot, micro-batches of 4",
    "kshot, gradient checkpointing",
)
EAGER: dict[str, Callable[..., Step]] = {
    "kshot": _eager,
    "kshot vmap": partial(_eager, strategy="vmap"),
    "kshot loop": partial(_eager, strategy="loop"),
    "kshot vmap, 4 chunks": _chunked,
    "kshot, micro-batches of 4": partial(_in_micro_batches, size=4),
    "kshot, gradient checkpointing": partial(_eager, gradient_checkpointing=True),
}
COMPILED: dict[str, Callable[..., Step]] = {
    "kshot compiled": _compiled_gradient,
    "kshot compiled, micro-batches of 8": partial(_in_micro_batches, size=8, compiled=True),
}
CONTESTANTS: dict[str, Callable[..., Step]] = {
    **EAGER,
    **COMPILED,
    **{peer: partial(_peer, peer=peer) for peer in PEERS},
}
