"""The outer optimizer: which one, its learning rate over time, and its state as tensors."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kshot.config import TrainingConfig

__all__ = ["learning_rate", "make_optimizer", "optimizer_tensors", "restore_optimizer"]


def make_optimizer(learner: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """The outer optimizer over the meta-parameters that are not frozen.

    Raises:
        ValueError: when the learner has nothing to train.
    """
    parameters = [p for p in learner.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(
            f"{type(learner).__name__} has no meta-parameters to train; evaluate it as it is."
        )
    constructors = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    return constructors[config.optimizer](
        parameters, lr=config.outer_lr, weight_decay=config.weight_decay
    )


def learning_rate(config: TrainingConfig, iteration: int) -> float:
    """The outer learning rate of an iteration 0 .. iterations - 1.

    Example:
        >>> config = TrainingConfig(iterations=100, outer_lr=1.0, schedule="cosine")
        >>> [round(learning_rate(config, i), 3) for i in (0, 50, 99)]
        [1.0, 0.5, 0.0]
    """
    done = iteration / config.iterations
    factor = {
        "constant": 1.0,
        "cosine": (1 + math.cos(math.pi * done)) / 2,
        "linear": 1 - done,
        "halving": 0.5 ** (iteration // config.halve_every),
    }[config.schedule]
    return config.outer_lr * factor


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's memory as tensors named "<parameter number>/<what>"."""
    return {
        f"{number}/{what}": torch.as_tensor(value)
        for number, memory in optimizer.state_dict()["state"].items()
        for what, value in memory.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    state = optimizer.state_dict()
    memories: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, what = name.split("/")
        memories.setdefault(int(number), {})[what] = tensor
    optimizer.load_state_dict({**state, "state": memories})
