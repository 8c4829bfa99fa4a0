"""The outer loop: move meta-parameters along the meta-gradient, one meta-batch after the other."""

import contextlib
import math
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from kshot.config import TrainingConfig
from kshot.data.sampler import Sampler
from kshot.device import choose_device
from kshot.evaluation.evaluate import NoNumberError, evaluate
from kshot.learner import MetaLearner
from kshot.losses import check_examples
from kshot.training.checkpoint import (
    Checkpoint,
    CheckpointError,
    CheckpointFolder,
    load_weights,
    save_checkpoint,
)
from kshot.training.compiled import compiled
from kshot.training.distributed import Processes, process_group
from kshot.training.history import History
from kshot.training.optimizer import (
    learning_rate,
    make_optimizer,
    optimizer_tensors,
    restore_optimizer,
)
from kshot.transforms import part_of_outer_step

__all__ = ["Interrupted", "TrainingDiverged", "TrainingState", "meta_train"]


class TrainingDiverged(RuntimeError):
    """The loss was not finite; the message names the iteration and the last good checkpoint."""


class Interrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C, after its checkpoint was written."""


@dataclass
class TrainingState:
    """Where a training stands, as stored in its checkpoints.

    Attributes:
        iteration: outer steps taken.
        seconds: time spent, over all resumptions.
        best_score: best validation score, None before the first validation.
        best_iteration: the iteration it was reached at.
        waited: validations since then.
        good: iteration and score of the best validations, the best first, as many as are kept.
        open_loss: sum of the losses since the last line of metrics.jsonl, of `open_steps` steps.
    """

    iteration: int = 0
    seconds: float = 0.0
    best_score: float | None = None
    best_iteration: int = 0
    waited: int = 0
    good: list[list[int | float]] = field(default_factory=list)
    open_loss: float = 0.0
    open_steps: int = 0

    @classmethod
    def stored(cls, checkpoint: Checkpoint, path: Path) -> "TrainingState":
        """What a checkpoint, read from a path, says of its training.

        Raises:
            CheckpointError: when another version of kshot says more than this one knows.
        """
        said = checkpoint.state["training"]
        unknown = sorted(set(said) - {one.name for one in fields(cls)})
        if unknown:
            raise CheckpointError(
                f"The checkpoint {path} is of another version of kshot, which also tells "
                f"{', '.join(unknown)} of a training. Install that version (run.json names it), "
                "or train again."
            )
        return cls(**said)

    def judge(self, score: float, higher_is_better: bool) -> bool:
        """Take in a validation score; True when it is the best so far."""
        best, sign = self.best_score, 1 if higher_is_better else -1
        if best is None or sign * (score - best) > _ROUNDING * abs(best):
            self.best_score, self.best_iteration, self.waited = score, self.iteration, 0
            return True
        self.waited += 1
        return False

    def rank(self, score: float, higher_is_better: bool, count: int) -> bool:
        """Take a score in where it is among the `count` best; whether it is."""
        sign = -1 if higher_is_better else 1
        ranked = sorted([*self.good, [self.iteration, score]], key=lambda one: sign * one[1])
        self.good = ranked[:count]
        return [self.iteration, score] in self.good

    def goes_on(self, config: TrainingConfig) -> bool:
        """Whether there is more to train; a run that stopped early and is resumed is done."""
        return self.iteration < config.iterations and not self.out_of_patience(config.patience)

    def out_of_patience(self, patience: int) -> bool:
        """Whether so many validations passed without a better one; patience 0 never runs out."""
        return 0 < patience <= self.waited


def meta_train(
    learner: MetaLearner,
    sampler: Sampler,
    config: TrainingConfig | None = None,
    *,
    validation: Sampler | None = None,
    folder: Path | str | None = None,
    name: str = "",
    resume: bool = False,
    quiet: bool = False,
) -> TrainingState:
    """Meta-train a learner and leave the best weights in it.

    Outer step i minimizes the meta-loss of the episodes i * meta_batch_size ... of the sampler, so
    that a resumed run and any number of processes see the same episodes. With a validation sampler
    the best weights by validation are kept, otherwise the last ones.

    Args:
        learner: what to train, in place; it stays on the device it was trained on.
        sampler: training episodes.
        config: how to train; see `TrainingConfig`.
        validation: validation episodes, the same ones each time.
        folder: where metrics.jsonl and checkpoints/ go; None keeps nothing on disk.
        name: the learner's registry name, stored in checkpoints.
        resume: continue from the latest checkpoint in the folder; begin, with a warning, where
            training was killed before the first.
        quiet: show no progress.

    Returns:
        The state at the end: iterations, seconds, best score.

    Raises:
        TrainingDiverged: when the loss is not finite.
        Interrupted: on Ctrl-C, after writing a checkpoint.
        CheckpointError: when a checkpoint cannot be written, or read to resume.
    """
    config = config or TrainingConfig()
    device = choose_device(config.device)
    folder = None if folder is None else Path(folder)
    with process_group(device) as processes, _interrupt_flag() as interrupted:
        trainer = _Trainer(learner, sampler, config, validation, folder, name, device, processes)
        if resume:
            trainer.restore()
        else:
            trainer.require_fresh_folder()
        trainer.run(interrupted, quiet or not processes.first)
    return trainer.state


class _Trainer:
    def __init__(
        self,
        learner: MetaLearner,
        sampler: Sampler,
        config: TrainingConfig,
        validation: Sampler | None,
        folder: Path | None,
        name: str,
        device: torch.device,
        processes: Processes,
    ) -> None:
        self.dtype = torch.float64 if config.precision == "float64" else torch.float32
        self.learner = learner.to(device, self.dtype)
        processes.broadcast(self.learner.state_dict().values())
        self.meta_loss = compiled(learner) if config.compile else learner
        self.optimizer = make_optimizer(learner, config)
        self.sampler, self.config, self.validation = sampler, config, validation
        self.folder, self.name, self.device, self.processes = folder, name, device, processes
        self.checkpoints = None if folder is None else CheckpointFolder(folder / "checkpoints")
        self.state = TrainingState()
        self.best_weights: dict[str, Tensor] | None = None

    def run(self, interrupted: threading.Event, quiet: bool) -> None:
        config, state = self.config, self.state
        start, start_seconds = state.iteration, state.seconds
        folder = self.folder if self.processes.first else None
        if not self.learner.training:  # else a part that is kept in evaluation mode would leave it
            self.learner.train()
        with History(folder, config, start=start, quiet=quiet) as history:
            while state.goes_on(config):
                began = time.perf_counter()
                state.open_loss += self.step()
                state.open_steps += 1
                state.iteration += 1
                done = state.iteration == config.iterations
                judged = done or state.iteration % config.validate_every == 0
                numbers = {"loss": state.open_loss / state.open_steps}
                if judged:
                    numbers |= self.validate()
                    impatient = state.out_of_patience(config.patience)
                    done = done or self.processes.agree(impatient, self.device)
                state.seconds += time.perf_counter() - began
                episodes = (state.iteration - start) * config.meta_batch_size
                numbers["episodes/s"] = episodes / (state.seconds - start_seconds)
                if judged:
                    history.write(state.iteration, **numbers, seconds=state.seconds)
                    state.open_loss, state.open_steps = 0.0, 0
                history.show(state.iteration, **numbers)
                stopped = self.processes.agree(interrupted.is_set(), self.device)
                if judged or stopped or state.iteration % config.checkpoint_every == 0:
                    self.save()
                if stopped and not done:
                    raise Interrupted(f"Training stopped after iteration {state.iteration}.")
                if done:
                    break
        if self.best_weights is not None:
            self.learner.load_state_dict(self.best_weights)
        self.processes.broadcast(self.learner.state_dict().values())

    def step(self) -> float:
        """One outer step; its loss."""
        config, iteration = self.config, self.state.iteration
        first = iteration * config.meta_batch_size
        share = self.processes.share(range(first, first + config.meta_batch_size))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, iteration)
        self.optimizer.zero_grad()
        size = config.micro_batch_size or len(share)
        *parts, last = (share[start : start + size] for start in range(0, len(share), size))
        with part_of_outer_step():
            value = sum(self._accumulate(part, len(share)) for part in parts)
        value += self._accumulate(last, len(share))
        self.processes.average_gradients(self.learner)
        norm = torch.nn.utils.clip_grad_norm_(
            self.learner.parameters(), config.clip_norm or math.inf
        )
        if not math.isfinite(norm.item()):
            raise TrainingDiverged(self._divergence(norm.item(), "norm of the meta-gradient"))
        self.optimizer.step()
        self.processes.average_buffers(self.learner)
        return value

    def _accumulate(self, share: range, total: int) -> float:
        """Add the meta-gradient of some episodes, as a part of a total; their part of the loss."""
        episodes = self.sampler.sample(share)
        check_examples(episodes.support, self.learner.loss.kind, "support")
        check_examples(episodes.query, self.learner.loss.kind, "query")
        half = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            loss = self.meta_loss(episodes.to(self.device, self.dtype)) * (len(share) / total)
        value = self.processes.mean(loss.detach().clone()).item()
        if not math.isfinite(value):
            raise TrainingDiverged(self._divergence(value, "meta-loss"))
        loss.backward()
        return value

    def validate(self) -> dict[str, float]:
        """The validation score, on the first process; the best weights are kept."""
        config = self.config
        if self.validation is None or not config.validation_episodes or not self.processes.first:
            return {}
        try:
            evaluation = evaluate(self.learner, self.validation, config.validation_episodes)
            score, half_width, _ = evaluation.interval
        except NoNumberError as error:
            warnings.warn(
                f"The validation after iteration {self.state.iteration} gives no score, and "
                f"training goes on: {error}",
                stacklevel=4,
            )
            self.state.waited += 1
            return {}
        higher_is_better = evaluation.metric == "accuracy"
        best = self.state.judge(score, higher_is_better)
        if best:
            weights = self.learner.state_dict()
            self.best_weights = {key: value.clone() for key, value in weights.items()}
        if self.checkpoints is not None:
            # Ranked first: each file says which weights were the best when it was written.
            if config.keep_best > 1 and self.state.rank(score, higher_is_better, config.keep_best):
                self._save_weights(self.checkpoints.good(self.state.iteration))
            if best:
                self._save_weights(self.checkpoints.best)
        return {f"validation {evaluation.metric}": score, "validation ci95": half_width}

    def _save_weights(self, path: Path) -> None:
        save_checkpoint(path, self._weights(), self._description())

    def _weights(self) -> dict[str, Tensor]:
        """The learner's weights as a checkpoint names them."""
        return {f"learner/{key}": value for key, value in self.learner.state_dict().items()}

    def save(self) -> None:
        """Write a checkpoint from which training resumes exactly."""
        if self.checkpoints is None or not self.processes.first:
            return
        tensors = self._weights()
        for key, value in optimizer_tensors(self.optimizer).items():
            tensors[f"optimizer/{key}"] = value
        tensors["random/cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state(self.device)
        self.checkpoints.save(self.state.iteration, tensors, self._description())
        self.checkpoints.keep_good([int(iteration) for iteration, _ in self.state.good])

    def require_fresh_folder(self) -> None:
        """Refuse to mix this training with the checkpoints of another."""
        if self.checkpoints is not None and self.checkpoints.steps():
            raise FileExistsError(
                f"{self.checkpoints.folder} has checkpoints already. Continue that training with "
                "resume=True, or name another folder."
            )

    def restore(self) -> None:
        """Continue from the latest intact checkpoint, or begin where none was written yet."""
        if self.checkpoints is None:
            raise ValueError("Only a run with a folder can be resumed: give meta_train a folder.")
        if self.checkpoints.empty():
            warnings.warn(
                f"There is no checkpoint in {self.checkpoints.folder} yet: training begins anew.",
                stacklevel=3,
            )
            return
        path, checkpoint = self.checkpoints.load_latest()
        load_weights(self.learner, checkpoint, self.name, path)
        restore_optimizer(self.optimizer, checkpoint.section("optimizer"))
        torch.set_rng_state(checkpoint.tensors["random/cpu"])
        if self.device.type == "cuda" and "random/cuda" in checkpoint.tensors:
            torch.cuda.set_rng_state(checkpoint.tensors["random/cuda"], self.device)
        self.state = TrainingState.stored(checkpoint, path)
        best = self.checkpoints.load_best()
        if best is None:  # there is none, or it is damaged: the next validation gives one
            self.state.best_score, self.state.best_iteration = None, 0
        else:
            self.best_weights = best.section("learner")

    def _description(self) -> dict[str, object]:
        return {"learner": self.name, "training": asdict(self.state)}

    def _divergence(self, value: float, what: str) -> str:
        last = self.checkpoints.steps() if self.checkpoints is not None else []
        kept = f"The last good checkpoint is {last[-1]}." if last else "There is no checkpoint yet."
        return (
            f"The {what} is {value} at iteration {self.state.iteration}; the weights were not "
            f"changed by it. {kept} Lower outer_lr (or the learner's inner_lr), or set clip_norm."
        )


_ROUNDING = 1e-9
"""By how much of it a score must differ from another to be better."""


@contextlib.contextmanager
def _interrupt_flag() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, so that the current step ends first; a second one interrupts."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = signal.getsignal(signal.SIGINT)

    def on_interrupt(signum: int, frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)
