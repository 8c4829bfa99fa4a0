"""`python -m studies copy_task [CONTROLLER] [MINUTES]`: does the Turing machine learn to copy?

It reads 1 to 20 random vectors of 8 bits and an end mark, and then has to give them again. Trained
until 200 of 200 new sequences of 20 come out without a wrong bit, it is asked for sequences of 40,
twice as long as any it saw (Graves et al. 2014, section 4.1).
"""

import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kshot import TuringMachine
from kshot.evaluation.intervals import share_interval
from kshot.evaluation.results import git_revision, machine, merge_results, versions

__all__ = ["Kept", "copying", "main", "share_copied"]

BITS, LONGEST, BATCH, LEARNING_RATE, LARGEST_GRADIENT = 8, 20, 16, 1e-3, 1.0
TRIALS, CHECK_EVERY = 200, 100
RESULTS = Path("results/memory/copy_task.json")


class Kept(nn.Module):
    """An LSTM that has to keep the sequence in its own state: what an outer memory is compared to.

    Args:
        hidden: size of its state.
    """

    def __init__(self, hidden: int = 256) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BITS + 1, hidden, batch_first=True)
        self.outputs = nn.Linear(hidden, BITS)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (tasks, steps, bits)."""
        return self.outputs(self.lstm(inputs)[0])


def main(arguments: list[str]) -> None:
    """Train one network until it copies, or for so many minutes; write what it can do then."""
    name = arguments[0] if arguments else "lstm"
    minutes = float(arguments[1]) if len(arguments) > 1 else 60.0
    if name not in ("lstm", "feed_forward", "none"):
        raise SystemExit(f"Give the controller: lstm, feed_forward, or none, not {name!r}.")
    torch.manual_seed(0)
    network = Kept() if name == "none" else TuringMachine(BITS + 1, BITS, controller=name)  # pyright: ignore
    started = time.perf_counter()
    iterations = _train(network, started, 60 * minutes)
    seconds = round(time.perf_counter() - started, 1)
    rows = [_row(network, name, length, iterations, seconds) for length in (10, 20, 30, 40)]
    merge_results(RESULTS, rows)


def copying(length: int, tasks: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs (tasks, 2 length + 1, bits + 1), and the bits (tasks, length, bits) of the answer.

    The last input is the end mark; while the answer is given there is nothing to read.
    """
    bits = torch.randint(0, 2, (tasks, length, BITS), generator=generator).float()
    inputs = torch.zeros(tasks, 2 * length + 1, BITS + 1)
    inputs[:, :length, :BITS] = bits
    inputs[:, length, BITS] = 1
    return inputs, bits


def share_copied(network: nn.Module, length: int, tasks: int = TRIALS) -> Tensor:
    """Whether each of some new sequences came out without a wrong bit, (tasks,)."""
    inputs, bits = copying(length, tasks, torch.Generator().manual_seed(10**6 + length))
    with torch.no_grad():
        answer = network(inputs)[:, length + 1 :] > 0
    return (answer == (bits > 0)).flatten(1).all(1).float()


def _train(network: nn.Module, started: float, seconds: float) -> int:
    """Train until the longest sequences are copied, or the time is over; the iterations."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    iteration, losses = 0, []
    while time.perf_counter() - started < seconds:
        length = int(torch.randint(1, LONGEST + 1, (), generator=generator))
        inputs, bits = copying(length, BATCH, generator)
        answer = network(inputs)[:, length + 1 :]
        loss = nn.functional.binary_cross_entropy_with_logits(answer, bits)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        iteration += 1
        losses.append(loss.item())
        if iteration % CHECK_EVERY == 0:
            copied = float(share_copied(network, LONGEST).mean())
            passed = time.perf_counter() - started
            mean = sum(losses[-CHECK_EVERY:]) / CHECK_EVERY
            print(
                f"{iteration:6d}  {passed:6.0f} s  loss {mean:.4f}  copied {copied:.3f}", flush=True
            )
            if copied == 1:
                break
    return iteration


def _row(
    network: nn.Module, name: str, length: int, iterations: int, seconds: float
) -> dict[str, Any]:
    trials = 1000
    accuracy = share_interval(float(share_copied(network, length, trials).mean()), trials)
    print(f"{name}: {length} vectors copied without a wrong bit {accuracy}", flush=True)
    return {
        "learner": "lstm" if name == "none" else "ntm",
        "data": "copy",
        "protocol": f"length {length}, trained on 1 to {LONGEST}",
        "split": "test",
        "backbone": "none" if name == "none" else f"{name} controller",
        "way": 0,
        "shot": 0,
        "query_shot": 0,
        "length": length,
        "episodes": trials,
        "accuracy": accuracy.value,
        "ci95": (accuracy.high - accuracy.low) / 2,
        "batch_norm": "none",
        "transductive": False,
        "seed": 0,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "train_seconds": seconds,
        "train_iterations": iterations,
        "command": "python -m studies " + shlex.join(sys.argv[1:]),
        "versions": versions(),
        "git": git_revision(),
        "machine": machine(),
        "recipe": None,
        "published": None,
    }
