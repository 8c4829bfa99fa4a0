"""Draw the figures of docs/idea.md into docs/figures: `python -m studies figures`, a minute or two.

Small learners are trained for seconds each, so that anyone can draw these again; what kshot reaches
is in results/.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

import kshot
from kshot.losses import mask_absent
from kshot.plots import Regions, plot_embeddings, plot_episode, plot_regions

__all__ = ["Clusters", "main"]

FOLDER = Path(__file__).parents[1] / "docs" / "figures"
EDGE = 3.0


class Clusters:
    """Tasks of three clusters of points in the plane, each task with places of its own."""

    def __init__(self, seed: int, shot: int = 3) -> None:
        self.seed, self.shot = seed, shot

    def sample(self, episodes: Sequence[int]) -> kshot.Episodes:
        """Tasks of `shot` support examples and ten queries a class."""
        generator = torch.Generator().manual_seed(self.seed * 10**6 + int(episodes[0]))
        tasks, count = len(episodes), self.shot + 10
        # Clusters lie around a circle, turned at random, so that they do not cover each other.
        turns = torch.rand(tasks, 1, generator=generator) + torch.arange(3) / 3
        turns = turns + 0.15 * torch.rand(tasks, 3, generator=generator)
        order = torch.rand(tasks, 3, generator=generator).argsort(1)
        turns = turns.gather(1, order) * 2 * torch.pi
        centers = 1.6 * torch.stack([turns.cos(), turns.sin()], -1)
        noise = 0.45 * torch.randn(tasks, 3, count, 2, generator=generator)
        points = centers.unsqueeze(2) + noise
        classes = torch.eye(3).view(1, 3, 1, 3)

        def part(rows: slice) -> kshot.Examples:
            chosen = points[:, :, rows]
            labels = classes.expand(tasks, 3, chosen.shape[2], 3)
            return kshot.Examples(chosen.flatten(1, 2), labels.flatten(1, 2))

        return kshot.Episodes(part(slice(0, self.shot)), part(slice(self.shot, count)))


def main(arguments: list[str]) -> None:
    """Train the two learners and draw."""
    FOLDER.mkdir(exist_ok=True)
    regions().savefig(FOLDER / "idea_regions.png", dpi=130)
    for name, figure in comparing().items():
        figure.savefig(FOLDER / f"idea_{name}.png", dpi=130)


def regions():
    """How MAML gives the plane to three clusters, step by step."""
    torch.manual_seed(0)
    net = kshot.WithHead(kshot.MLP((2,), widths=(32, 32)), 3)
    learner = kshot.MAML(net, inner_lr=0.3, num_inner_steps=3)
    training = kshot.TrainingConfig(
        iterations=300, meta_batch_size=16, outer_lr=5e-3, device="cpu", validation_episodes=0
    )
    kshot.meta_train(learner, Clusters(0), training, quiet=True)
    support = Clusters(1).sample([3]).support
    assert isinstance(support.inputs, torch.Tensor)
    ticks = torch.linspace(-EDGE, EDGE, 81)
    grid = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), -1).view(1, -1, 2)
    places, columns = support.inputs[0].numpy(), support.targets[0].argmax(-1).tolist()
    panels = {}
    learner.eval()
    with torch.no_grad():
        for steps in (0, 1, 3, 10):
            learner.num_test_steps = steps
            logits = learner.predict(learner.adapt(support), grid)
            name = {0: "before", 1: "after 1 step"}.get(steps, f"after {steps} steps")
            shares = logits.softmax(-1).view(81, 81, 3).numpy()
            panels[name] = Regions(shares, places, columns)
    return plot_regions(panels, (-EDGE, EDGE, -EDGE, EDGE))


def comparing():
    """A prototypical network on letters of scripts it has not seen: embeddings, and an episode."""
    torch.manual_seed(0)
    data = kshot.glyphs()
    learner = kshot.ProtoNet(kshot.Conv4(data.input_shape, strided=True), rotate_support=True)
    train = data.sampler("train", kshot.EpisodeConfig(way=20, shot=1, query_shot=5), seed=0)
    training = kshot.TrainingConfig(iterations=200, device="cpu", validation_episodes=0)
    kshot.meta_train(learner, train, training, quiet=True)
    learner.eval()
    figures = {}
    for name, shot, queries in (("embeddings", 5, 8), ("episode", 1, 5)):
        wanted = kshot.EpisodeConfig(way=5, shot=shot, query_shot=queries)
        sampler = data.sampler("test", wanted, seed=2)
        assert isinstance(sampler, kshot.EpisodeSampler)
        episodes = sampler.sample([0])
        support, query, classes = episodes
        assert classes is not None and isinstance(support.inputs, torch.Tensor)
        names = [sampler.dataset.class_names[k] for k in classes[0].tolist()]
        columns, query_columns = (part.targets[0].argmax(-1) for part in (support, query))
        with torch.no_grad():
            logits = learner.predict(learner.adapt(support), query.inputs)
            probabilities = mask_absent(logits, episodes.present).softmax(-1)[0]
            embedded = [part[0].numpy() for part in learner.embed(episodes)]
        if name == "embeddings":
            predicted = probabilities.argmax(-1).tolist()
            figures[name] = plot_embeddings(
                *(embedded[0], columns.tolist(), embedded[1], query_columns.tolist()),
                predicted,
                names,
            )
        else:
            assert isinstance(query.inputs, torch.Tensor)
            pictures = torch.stack([support.inputs[0][columns == k] for k in range(5)])
            figures[name] = plot_episode(
                pictures, query.inputs[0], probabilities, query_columns.tolist(), names
            )
    return figures
