"""`python -m studies last_block`: is it worth to tune an encoder's last block on a few examples?

5-way 5-shot tasks of unseen classes, against logistic regression on the frozen encoder, which
tuning starts from, on the same episodes: objects and intents as the encoders know them, and faces
and characters, which EfficientNet-lite0 was never shown. With `val`, steps and rates on validation
classes; further names of data choose among them.
"""

import random
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, nn

from benchmarks.encoders import efficientnet_lite0, minilm
from kshot import EpisodeConfig, EpisodeSampler, LabelledDataset, MetaLearner, evaluate
from kshot.data.files import find_data
from kshot.encoders import Encoder
from kshot.encoders.last_block import LastBlock
from kshot.episodes import Examples, Inputs, map_tensors
from kshot.evaluation.evaluate import paired_difference
from kshot.heads.last_block import LastBlockTuning
from kshot.learners.baselines.linear_heads import LogisticHead
from studies.embedded import Embedded, caltech, intents, published_folds, result, store

__all__ = ["main"]

EPISODES, TRIED_EPISODES = 60, 20
NAMES = ("caltech101", "banking77", "faces", "characters")
SHOT, QUERY_SHOT = 5, 5
MOST_PER_CLASS, MOST_CLASSES = 20, 20
TRIED = [(10, 3e-4), (10, 1e-3), (30, 3e-4)]


class FromPool(MetaLearner):
    """A learner whose examples are places in a pool of inputs that are computed once.

    Args:
        learner: what learns from the inputs at those places.
        pool: (n, ...) tensors.
    """

    def __init__(self, learner: MetaLearner, pool: Inputs) -> None:
        super().__init__()
        self.learner, self.pool = learner, pool

    def adapt(self, support: Examples) -> Any:
        """What the learner learns."""
        return self.learner.adapt(support._replace(inputs=self._found(support.inputs)))

    def predict(
        self, state: Any, inputs: Inputs, mask: Bool[Tensor, "tasks m"] | None = None
    ) -> Tensor:
        """What the learner predicts."""
        return self.learner.predict(state, self._found(inputs), mask)

    def _found(self, places: Inputs) -> Inputs:
        assert isinstance(places, Tensor)
        return map_tensors(lambda tensor: tensor[places[..., 0].long()], self.pool)


def main(arguments: list[str]) -> None:
    """Tune and compare on each kind of example; with `val`, try settings on validation classes."""
    split = "val" if "val" in arguments else "test"
    for name in [name for name in arguments if name != "val"] or NAMES:
        started = time.perf_counter()
        encoder = minilm() if name == "banking77" else efficientnet_lite0()
        inputs, labels = _examples(name, split)
        end = LastBlock(encoder)
        activations = end.activations(inputs)
        with torch.no_grad():
            embeddings = end.embed(activations)
        names, columns = np.unique(labels, return_inverse=True)
        places = np.arange(len(columns), dtype=np.float32)[:, None]
        data = LabelledDataset.from_labels(places, columns, names.tolist())
        episodes = EpisodeConfig(way=5, shot=SHOT, query_shot=QUERY_SHOT)
        sampler = EpisodeSampler(data, episodes, seed=1, split=split)
        number = EPISODES if split == "test" else TRIED_EPISODES
        frozen = evaluate(FromPool(LogisticHead(nn.Identity()), embeddings).eval(), sampler, number)
        print(f"{name}, frozen: {frozen.interval}", flush=True)
        if split != "test":
            for num_steps, lr in TRIED:
                tuning = LastBlockTuning(end, num_steps=num_steps, lr=lr)
                tuned = evaluate(FromPool(tuning, activations).eval(), sampler, number)
                gain = paired_difference(tuned, frozen)
                print(f"  {num_steps} steps at {lr}: {gain}", flush=True)
            continue
        tuned = evaluate(FromPool(LastBlockTuning(end), activations).eval(), sampler, number)
        gain = paired_difference(tuned, frozen)
        shown = Embedded(name, _short(encoder), data, [])
        told = {"protocol": "unseen classes", "way": 5, "shot": SHOT, "query_shot": QUERY_SHOT}
        rows = [
            result(shown, "logistic", frozen.interval, **told, started=started),
            result(
                shown,
                "last_block",
                tuned.interval,
                **told,
                started=started,
                differences={"logistic": {"difference": gain.mean, "ci95": gain.half_width}},
            ),
        ]
        store("last_block", rows)


def _short(encoder: Encoder) -> str:
    return str(encoder.spec).rpartition(":")[2]


def _examples(name: str, split: str) -> tuple[list[Any], list[str]]:
    """Some examples of some classes of a split, as an encoder reads them, and their classes."""
    if name == "faces":
        people = range(31, 41) if split == "test" else range(21, 31)
        inputs, labels = _archive("orl_faces/orl_faces.zip")
        chosen = {f"s{person}" for person in people}
    elif name == "characters":
        part = "evaluation" if split == "test" else "background"
        inputs, labels = _archive(f"omniglot/images_{part}.zip")
        chosen = set(labels)
    else:
        inputs, labels = caltech() if name == "caltech101" else intents(name)
        chosen = set(published_folds(name)[0][split])
    draw = random.Random(0)
    classes = draw.sample(sorted(chosen), min(MOST_CLASSES, len(chosen)))
    places = []
    for label in classes:
        own = [place for place, each in enumerate(labels) if each == label]
        places += draw.sample(own, min(MOST_PER_CLASS, len(own)))
    return [inputs[place] for place in places], [labels[place] for place in places]


def _archive(file: str) -> tuple[Sequence[bytes], list[str]]:
    """Pictures of an archive and the folders they are in."""
    with zipfile.ZipFile(find_data(Path(file))) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith((".png", ".pgm")))
        return [archive.read(name) for name in names], [
            name.rpartition("/")[0].partition("/")[2] for name in names
        ]
