"""Training of learners that read in turn, beside PyTorch's own LSTM over the same sequences."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.rows import alternate, benchmark_row, write_rows
from kshot import MANN, NTM, Episodes, Examples, Flatten, MetaLearner, RecurrentLearner
from kshot.training.compiled import compiled

__all__ = ["main"]

WAY, SHOT, SIDE, HIDDEN, META_BATCH, STEPS = 5, 10, 20, 200, 16, 4
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")


class Kernel(nn.Module):
    """`nn.LSTM` over a whole sequence in one call: it has no memory beside it, and no queries."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(SIDE * SIDE + WAY, HIDDEN, batch_first=True)
        self.outputs = nn.Linear(HIDDEN, WAY)

    def forward(self, episodes: Episodes) -> Tensor:
        """The loss of the support examples, each label one step late."""
        inputs, targets, _ = episodes.support
        assert isinstance(inputs, Tensor)
        late = torch.cat([torch.zeros_like(targets[:, :1]), targets[:, :-1]], 1)
        outputs, _ = self.lstm(torch.cat([inputs.flatten(2), late], -1))
        logits = self.outputs(outputs).flatten(0, 1)
        return nn.functional.cross_entropy(logits, targets.flatten(0, 1))


def main() -> None:
    """Measure and write results/benchmarks/memory.json."""
    torch.manual_seed(0)
    episodes = _episodes()
    kernel = _training(Kernel(), episodes)
    encoder = Flatten((1, SIDE, SIDE))
    learners: dict[str, MetaLearner] = {
        "lstm": RecurrentLearner(encoder, WAY, hidden=HIDDEN),
        "gru": RecurrentLearner(encoder, WAY, cell="gru", hidden=HIDDEN),
        "ntm": NTM(encoder, WAY, hidden=HIDDEN),
        "mann": MANN(encoder, WAY, hidden=HIDDEN),
    }
    trained: dict[str, nn.Module] = {**learners}
    trained["mann, its step compiled"] = compiled(copy.deepcopy(learners["mann"]))
    rows = []
    for name, learner in trained.items():
        seconds, peer, ratio = alternate(_training(learner, episodes), kernel)
        row = benchmark_row(
            f"{name}: training, {WAY * SHOT} steps of {SIDE} x {SIDE} px, {META_BATCH} tasks",
            STEPS * META_BATCH / seconds,
            STEPS * META_BATCH / peer,
            "nn.LSTM in one call",
            "episodes/s",
            pairwise_ratio=1 / ratio,
            threads=torch.get_num_threads(),
        )
        if name.startswith("mann"):
            row["profile"] = _profile(_training(learner, episodes))
        rows.append(row)
    write_rows("memory", rows)


def _profile(train: Callable[[], None]) -> dict[str, Any]:
    """What a step of reading, forward and backward, spends its time on."""
    train()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        train()
    events = profiled.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    products = sum(event.self_cpu_time_total for event in events if event.key in PRODUCTS)
    operations = sum(event.count for event in events if event.key.startswith("aten::"))
    return {
        "share_of_matrix_products": products / total,
        "operations_a_step": operations / (STEPS * (WAY * SHOT + 1)),  # the queries are one step
    }


def _episodes() -> Episodes:
    """Random pictures in a random order."""

    def draw(shot: int) -> Examples:
        order = torch.rand(META_BATCH, WAY * shot).argsort(1) % WAY
        return Examples(torch.rand(META_BATCH, WAY * shot, 1, SIDE, SIDE), torch.eye(WAY)[order])

    return Episodes(draw(SHOT), draw(1), torch.arange(WAY).expand(META_BATCH, -1))


def _training(learner: nn.Module, episodes: Episodes) -> Callable[[], None]:
    """Some steps of training."""
    optimizer = torch.optim.Adam(learner.parameters())

    def train() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            learner(episodes).backward()
            optimizer.step()

    return train
