"""How well the demo names drawings: Omniglot's test characters through the HTTP API.

`python -m benchmarks.demo_accuracy` writes results/demo/omniglot.json. The weights that come with
kshot never saw Omniglot; pictures are sent as its authors drew them, 105 x 105, dark on white.
"""

import argparse
import base64
import io
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from kshot.config import EpisodeConfig
from kshot.data.sampler import EpisodeSampler
from kshot.data.sources.omniglot import omniglot
from kshot.demo.api import Api
from kshot.demo.learners import SHIPPED, PictureLearner
from kshot.demo.limits import Limits
from kshot.demo.server import build_app
from kshot.evaluation.intervals import mean_interval
from kshot.evaluation.results import git_revision, machine, merge_results, versions
from kshot.training.run import read_description

__all__ = ["main"]

WAY, QUERY_SHOT = 5, 3
FOLDER = Path(__file__).parents[1] / "results" / "demo"


def main() -> None:
    """Measure every learner at 1 and 5 shots and write the rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo_accuracy")
    parser.add_argument("learners", nargs="*", default=["protonet", "maml"])
    parser.add_argument("--split", default="test", help="val to tune on; only test is written")
    parser.add_argument("--episodes", type=int, default=200)
    flags = parser.parse_args()
    split = flags.split
    data = omniglot(size=105).dataset(split)
    upright = data.select(np.flatnonzero(data.quarter_turns == 0).tolist())
    rows = []
    for name in flags.learners:
        folder = SHIPPED / name
        limits = Limits(rate=1e9, burst=10**9)
        app = build_app(Api(learners=[PictureLearner.load(folder, name)], limits=limits))
        with TestClient(app) as client:
            for shot in (1, 5):
                episode = EpisodeConfig(WAY, shot, QUERY_SHOT)
                sampler = EpisodeSampler(upright, episode, seed=1, split=split)
                scores = [_accuracy(client, sampler, index) for index in range(flags.episodes)]
                rows.append(_row(name, folder, shot, split, np.array(scores)))
                print(f"{name} {shot}-shot: {100 * rows[-1]['accuracy']:.1f} %", flush=True)
    if split == "test":
        merge_results(FOLDER / "omniglot.json", rows)


def _accuracy(client: TestClient, sampler: EpisodeSampler, index: int) -> float:
    """The share of an episode's queries that are named right."""
    drawn = sampler.indices([index])
    pictures = sampler.dataset.examples
    classes: list[dict[str, Any]] = [{"name": str(column), "pictures": []} for column in range(WAY)]
    for row, column in zip(drawn.support_rows[0], drawn.support_columns[0], strict=True):
        classes[column]["pictures"].append(_file(pictures[row, 0]))
    answer = client.post("/api/adapt", json={"classes": classes})
    answer.raise_for_status()
    queries = [_file(pictures[row, 0]) for row in drawn.query_rows[0]]
    body = {"session": answer.json()["session"], "pictures": queries}
    answer = client.post("/api/predict", json=body)
    answer.raise_for_status()
    named = [int(one["class"]) for one in answer.json()["predictions"]]
    return float(np.mean(np.array(named) == drawn.query_columns[0]))


def _file(ink: np.ndarray) -> str:
    """A drawing, ink 255 on 0, as a visitor sends it."""
    stream = io.BytesIO()
    Image.fromarray(255 - ink).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def _row(name: str, folder: Path, shot: int, split: str, scores: np.ndarray) -> dict[str, Any]:
    description = read_description(folder)
    mean, half_width, n = mean_interval(scores)
    config = description["config"]
    return {
        "learner": name,
        "data": "omniglot",
        "protocol": "drawings through the demo's API",
        "split": split,
        "train_split": f"glyphs {config['training']['split']}",
        "within": False,
        "backbone": config["backbone"]["name"],
        "way": WAY,
        "shot": shot,
        "query_shot": QUERY_SHOT,
        "episodes": n,
        "accuracy": mean,
        "ci95": half_width,
        "batch_norm": "running" if name == "protonet" else "support_and_query",
        "transductive": False,
        "num_test_steps": config["learner"].get("num_inner_steps"),
        "seed": config["training"]["seed"],
        "evaluation_seed": 1,
        "train_seconds": None,
        "train_iterations": config["training"]["iterations"],
        "command": shlex.join(["python", "-m", "benchmarks.demo_accuracy", *sys.argv[1:]]),
        "versions": versions(),
        "git": git_revision(),
        "machine": machine(),
        "recipe": description["recipe"],
        "published": None,
    }


if __name__ == "__main__":
    main()
