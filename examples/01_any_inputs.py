"""MAML on numbers, pictures and dictionaries of inputs: one class, whatever an input is.

python examples/01_any_inputs.py
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import kshot

TRAINING = kshot.TrainingConfig(iterations=150, meta_batch_size=8, outer_lr=3e-3, device="cpu")


@dataclass
class Sentences:
    """Tasks of 3 topics, each with 5 favourite words of 50, told by sentences of 4 to 8 words.

    A sampler is anything with `sample`; inputs may be a dictionary of tensors (tasks, n, ...).
    """

    seed: int

    def sample(self, episodes: Sequence[int]) -> kshot.Episodes:
        """Tasks of a support and a query sentence a topic."""
        generator = torch.Generator().manual_seed(self.seed + int(episodes[0]))
        count = len(episodes)
        favourite = torch.randint(50, (3 * count, 5), generator=generator)
        likely = torch.full((3 * count, 50), 0.02).scatter(1, favourite, 1.0)
        words = torch.multinomial(likely, 2 * 8, replacement=True, generator=generator)
        lengths = torch.randint(4, 9, (count, 3, 2, 1), generator=generator)
        inputs = {"words": words.view(count, 3, 2, 8), "present": torch.arange(8) < lengths}
        targets = torch.eye(3).expand(count, -1, -1)
        support, query = ({name: x[:, :, i] for name, x in inputs.items()} for i in (0, 1))
        return kshot.Episodes(kshot.Examples(support, targets), kshot.Examples(query, targets))


class BagOfWords(nn.Module):
    """The mean of the words' vectors, then a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Embedding(50, 32)
        self.head = nn.Linear(32, 3)

    def forward(self, sentences: dict[str, Tensor]) -> Tensor:
        """Logits (n, 3) of sentences."""
        present = sentences["present"].unsqueeze(-1)
        return self.head((self.vectors(sentences["words"]) * present).sum(1) / present.sum(1))


def main() -> dict[str, float]:
    """Meta-train one learner class on three kinds of input; scores on tasks it has not seen."""
    torch.manual_seed(0)
    waves, glyphs, splits = kshot.sinusoid(), kshot.glyphs(), ("train", "test")
    points = kshot.EpisodeConfig(shot=10, query_shot=10)
    episode = kshot.EpisodeConfig(way=5, shot=1, query_shot=5)
    line = kshot.WithHead(kshot.MLP((1,)), 1)
    picture = kshot.WithHead(kshot.Conv4(glyphs.input_shape, strided=True, hidden=32), 5)
    numbers = kshot.MAML(line, inner_lr=0.01, loss=kshot.mean_squared_error)
    tasks = {
        "numbers": (numbers, [waves.sampler(split, points, 0) for split in splits]),
        "pictures": (kshot.MAML(picture), [glyphs.sampler(split, episode, 0) for split in splits]),
        "dictionaries": (kshot.MAML(BagOfWords(), inner_lr=2.0), [Sentences(0), Sentences(10**6)]),
    }
    scores = {}
    for name, (learner, (training, test)) in tasks.items():
        kshot.meta_train(learner, training, TRAINING, quiet=True)
        result = kshot.evaluate(learner, test, num_episodes=200)
        scores[name] = result.interval.mean
        print(f"{name:<12} {result.metric:<20} {result.interval}")
    return scores


if __name__ == "__main__":
    main()
