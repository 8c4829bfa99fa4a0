"""Checkpoints: one safetensors file each, written atomically, checksummed, without pickle."""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from kshot.data.atomic import write_atomically

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "CheckpointFolder",
    "load_checkpoint",
    "load_weights",
    "save_checkpoint",
]

FORMAT = 1
"""Version of the layout; a newer one is refused, an older one must stay readable."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says why and what to do."""


class Checkpoint(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        tensors: by name, such as "learner/encoder.weight" or "optimizer/0/exp_avg".
        state: everything else: the learner's name, the iteration, the best score, ...
    """

    tensors: dict[str, Tensor]
    state: dict[str, Any]

    def section(self, name: str) -> dict[str, Tensor]:
        """The tensors whose names begin with "name/", without it."""
        start = f"{name}/"
        return {
            key.removeprefix(start): tensor
            for key, tensor in self.tensors.items()
            if key.startswith(start)
        }


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write a checkpoint so that at every moment the file is the old one or the new one.

    Raises:
        CheckpointError: when the disk is full or not writable; the old file is still there.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    header = {"format": FORMAT, "digest": _digest(plain), "state": dict(state)}
    data = save(plain, metadata={"kshot": json.dumps(header)})
    try:
        write_atomically(path, data)
    except OSError as error:
        raise CheckpointError(
            f"The checkpoint {path} could not be written ({error.strerror or error}). Free "
            f"{len(data) / 2**20:.0f} MB or choose another folder; the one before is intact."
        ) from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and verify its checksum.

    Raises:
        CheckpointError: when the file is truncated, damaged, not kshot's, or of a newer format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("kshot")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"The checkpoint {path} is truncated, damaged or not a checkpoint ({error})."
        ) from error
    if header is None:
        raise CheckpointError(f"{path} is a safetensors file but not a checkpoint of kshot.")
    content = json.loads(header)
    if content["format"] > FORMAT:
        raise CheckpointError(
            f"The checkpoint {path} has format {content['format']} and this version of kshot reads "
            f"up to {FORMAT}. Install a newer kshot."
        )
    if content["digest"] != _digest(tensors):
        raise CheckpointError(f"The checkpoint {path} is damaged: its checksum differs.")
    return Checkpoint(tensors, content["state"])


def load_weights(learner: nn.Module, checkpoint: Checkpoint, name: str, path: Path) -> None:
    """Load a checkpoint's weights into a learner of the same name and shape.

    Raises:
        CheckpointError: when the checkpoint is of another learner or its tensors do not fit.
    """
    stored = checkpoint.state.get("learner")
    if stored != name:
        raise CheckpointError(
            f"The checkpoint {path} is of the learner {stored!r}, not of {name!r}. Build the "
            "learner from the configuration in its run folder."
        )
    try:
        learner.load_state_dict(checkpoint.section("learner"))
    except RuntimeError as error:
        raise CheckpointError(
            f"The checkpoint {path} does not fit the learner: {error}. Was it trained with another "
            "backbone or other options?"
        ) from error


class CheckpointFolder:
    """The checkpoints of a run: the latest, the one before it, the best, and some that were good.

    Args:
        folder: where they lie, as step_<iteration>.safetensors and best.safetensors.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best = folder / "best.safetensors"

    def good(self, iteration: int) -> Path:
        """The file of weights whose validation, at an iteration, was one of the best."""
        return self.folder / f"good_{iteration:09d}.safetensors"

    def keep_good(self, iterations: Sequence[int]) -> None:
        """Delete the weights of all other validations that were once among the best."""
        kept = {self.good(iteration) for iteration in iterations}
        for path in self.folder.glob("good_*.safetensors"):
            if path not in kept:
                path.unlink()

    def save(self, iteration: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
        """Write the checkpoint of an iteration; the one before it is kept, older ones go."""
        path = self.folder / f"step_{iteration:09d}.safetensors"
        save_checkpoint(path, tensors, state)
        for old in self.steps()[:-2]:
            old.unlink()
        return path

    def steps(self) -> list[Path]:
        """The files of iterations, the latest last."""
        return sorted(self.folder.glob("step_*.safetensors"))

    def empty(self) -> bool:
        """Whether nothing was saved yet."""
        return not self.steps() and not self.best.exists()

    def load_best(self) -> Checkpoint | None:
        """The best weights by validation; None, with a warning, when they are damaged."""
        try:
            return load_checkpoint(self.best) if self.best.exists() else None
        except CheckpointError as error:
            warnings.warn(f"{error} The latest weights are used instead.", stacklevel=2)
            return None

    def load_for_use(self) -> Checkpoint:
        """The best weights, or the latest when no validation chose any, and how they came about.

        Raises:
            CheckpointError: when there is neither.
        """
        best = self.load_best()
        if best is None:
            _, latest = self.load_latest()
            training = {**latest.state["training"], "best_score": None, "best_iteration": 0}
            return Checkpoint(latest.tensors, {**latest.state, "training": training})
        try:
            _, latest = self.load_latest()
        except CheckpointError:
            return best
        # Training went on after the best weights, mostly; killed, it may not have said so.
        states = (latest.state, best.state)
        return Checkpoint(best.tensors, max(states, key=lambda s: s["training"]["iteration"]))

    def load_latest(self) -> tuple[Path, Checkpoint]:
        """The latest checkpoint that is intact; a damaged one falls back with a warning.

        Raises:
            CheckpointError: when there is none.
        """
        problems = []
        for path in reversed(self.steps()):
            try:
                checkpoint = load_checkpoint(path)
            except CheckpointError as error:
                problems.append(str(error))
                continue
            for problem in problems:
                warnings.warn(f"{problem} Falling back to {path.name}.", stacklevel=2)
            return path, checkpoint
        raise CheckpointError(
            f"There is no usable checkpoint in {self.folder}. {' '.join(problems)}".strip()
        )


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
