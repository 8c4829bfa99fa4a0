"""What the trainer adds to the bare forward, backward and step of ProtoNet."""

import torch

from benchmarks.rows import alternate, benchmark_row, write_rows
from kshot import Conv4, EpisodeConfig, ProtoNet, TrainingConfig, glyphs, meta_train

__all__ = ["main"]

ITERATIONS = 12


def main() -> None:
    """Measure and write results/benchmarks/overhead.json."""
    data = glyphs()
    sampler = data.sampler("train", EpisodeConfig(way=60, shot=1, query_shot=5), seed=0)
    batches = [sampler.sample([n]) for n in range(ITERATIONS)]
    config = TrainingConfig(
        iterations=ITERATIONS, validate_every=ITERATIONS, schedule="constant", device="cpu"
    )

    def trainer() -> None:
        torch.manual_seed(0)
        meta_train(ProtoNet(Conv4(data.input_shape)), sampler, config, quiet=True)

    def bare() -> None:
        torch.manual_seed(0)
        learner = ProtoNet(Conv4(data.input_shape)).train()
        optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3)
        for episodes in batches:
            optimizer.zero_grad()
            learner(episodes).backward()
            optimizer.step()

    ours, peer, ratio = alternate(trainer, bare, repeats=9)
    row = benchmark_row(
        "ProtoNet 60-way 1-shot 5-query: meta_train, sampling included",
        ours / ITERATIONS,
        peer / ITERATIONS,
        "bare forward, backward, step",
        "s/iteration",
        pairwise_ratio=ratio,
    )
    write_rows("overhead", [row])
