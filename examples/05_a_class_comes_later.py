"""A served predictor learns one more class from a few examples, without training or adapting anew.

python examples/05_a_class_comes_later.py
"""

from collections.abc import Sequence

import torch

import kshot

TRAINING = kshot.TrainingConfig(
    iterations=900, meta_batch_size=128, outer_lr=5e-3, clip_norm=1.0, device="cpu"
)


class Sensors:
    """Tasks of 3 states of a machine, told by 8 sensors: each task has states of its own."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def sample(self, episodes: Sequence[int]) -> kshot.Episodes:
        """Tasks of 3 support examples a state, in a random order, and a query of each."""
        generator = torch.Generator().manual_seed(self.seed + int(episodes[0]))
        centers = torch.randn(len(episodes), 3, 8, generator=generator)
        order = torch.rand(len(episodes), 9, generator=generator).argsort(1) % 3
        support = centers.gather(1, order.unsqueeze(-1).expand(-1, -1, 8))
        noise = torch.randn(len(episodes), 12, 8, generator=generator) * 0.3
        return kshot.Episodes(
            kshot.Examples(support + noise[:, :9], torch.eye(3)[order]),
            kshot.Examples(centers + noise[:, 9:], torch.eye(3).expand(len(episodes), 3, 3)),
        )


def main() -> dict[str, float]:
    """Meta-train a GRU, serve two classes, add a third: the share of its examples named right."""
    torch.manual_seed(0)
    learner = kshot.RecurrentLearner(kshot.Flatten((8,)), max_way=3, cell="gru", hidden=64)
    kshot.meta_train(learner, Sensors(0), TRAINING, quiet=True)

    (inputs, targets, _), query, _ = Sensors(10**6).sample(range(500))
    third = targets[..., 2] == 1
    scores = {}
    with torch.no_grad():
        served = learner.adapt(kshot.Examples(inputs, targets[..., :2], ~third))
        grown = learner.observe(served, kshot.Examples(inputs, targets, third))
        for name, state in (("two classes", served), ("three classes", grown)):
            named = learner.predict(state, query.inputs).argmax(-1) == torch.arange(3)
            scores[name] = named[:, :2].float().mean().item()
            scores[f"{name}, the third"] = named[:, 2].float().mean().item()
    for name, score in scores.items():
        print(f"{name:<26} {score:.1%} named right")
    return scores


if __name__ == "__main__":
    main()
