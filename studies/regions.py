"""How each learner divides the plane: `python -m studies regions [LEARNER ...]`, minutes for all.

Classes are beams: their points lie in one direction from the middle, at any distance. Nothing in a
single task says so; a learner that was trained on other beams can know it. Every learner that can
learn that from points, in seconds, is trained and drawn into docs/figures/regions/NAME.png. The
figures show how learners differ, not how good they can be: what kshot reaches is in results/.
"""

from pathlib import Path

import numpy as np
import torch

import kshot
from kshot.config import Choice
from kshot.learners.registry import LEARNERS, TaskShape, build_learner
from kshot.plots import Regions, plot_regions

__all__ = ["beams", "main", "regions"]

FOLDER = Path(__file__).parents[1] / "docs" / "figures" / "regions"
LEFT_OUT = ("contrastive", "lstm", "gru", "ntm", "mann")
"""One learns from pictures moved; the others have not begun to learn after so few tasks."""
EDGE, TICKS, WAY = 3.0, 61, 3
CLASSES, EXAMPLES = 200, 30


def main(arguments: list[str]) -> None:
    """Train learners, by default all, and draw."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in arguments or [name for name in LEARNERS if name not in LEFT_OUT]:
        panels = regions(name)
        figure = plot_regions(panels, (-EDGE, EDGE, -EDGE, EDGE))
        figure.savefig(FOLDER / f"{name}.png", dpi=90)


def beams(seed: int) -> kshot.LabelledDataset:
    """Points in the plane: those of a class in about one direction, at any distance."""
    draw = np.random.default_rng(seed)
    directions = draw.uniform(0, 2 * np.pi, (CLASSES, 1))
    angles = directions + 0.15 * draw.normal(size=(CLASSES, EXAMPLES))
    distances = draw.uniform(0.5, EDGE, (CLASSES, EXAMPLES))
    points = np.stack([distances * np.cos(angles), distances * np.sin(angles)], -1)
    labels = np.repeat(np.arange(CLASSES), EXAMPLES)
    return kshot.LabelledDataset.from_labels(points.reshape(-1, 2).astype(np.float32), labels)


def task() -> tuple[np.ndarray, np.ndarray]:
    """The support sets that all learners are shown: places (5, WAY, 2) of three unseen beams."""
    draw = np.random.default_rng(3)
    angles = np.array([0.6, 2.4, 4.6]) + 0.15 * draw.normal(size=(5, WAY))
    distances = draw.uniform(0.5, EDGE, (5, WAY))
    distances[0] = 1.0, 2.6, 1.8
    return np.stack([distances * np.cos(angles), distances * np.sin(angles)], -1)


def regions(name: str) -> dict[str, Regions]:
    """The plane as a learner gives it to three new classes, from one and from five examples."""
    torch.manual_seed(0)
    row, data = LEARNERS[name], beams(0)
    encoder = Choice("mlp", {"widths": (32, 32)}) if row.meta_trained else Choice("flatten")
    tasks = TaskShape((2,), WAY, CLASSES, "classification")
    learner = build_learner(Choice(name), encoder, tasks)
    if row.meta_trained:
        episode = kshot.EpisodeConfig(way=WAY, shot=(1, 5), query_shot=5)
        training = kshot.TrainingConfig(
            iterations=300, meta_batch_size=8, outer_lr=3e-3, device="cpu", validation_episodes=0
        )
        sampler = kshot.EpisodeSampler(data, episode, seed=0)
        kshot.meta_train(learner, sampler, training, quiet=True)
    learner.eval()
    ticks = torch.linspace(-EDGE, EDGE, TICKS)
    grid = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), -1).view(1, -1, 2)
    places = torch.from_numpy(task()).float()
    panels = {}
    for shot, title in ((1, "from one example of each class"), (5, "from five")):
        inputs, columns = places[:shot].reshape(1, -1, 2), torch.arange(WAY).repeat(shot)
        support = kshot.Examples(inputs, torch.eye(WAY)[columns].unsqueeze(0))
        with torch.no_grad():
            logits = learner.predict(learner.adapt(support), grid)
        shares = logits[..., :WAY].softmax(-1).view(TICKS, TICKS, WAY)
        panels[title] = Regions(shares.numpy(), inputs[0].numpy(), columns.tolist())
    return panels
