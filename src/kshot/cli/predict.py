"""`kshot predict`: name pictures, from a folder with a few examples of each class."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from kshot.cli.tables import print_table
from kshot.data.pictures import prepare_picture
from kshot.data.sources.image_folder import read_support
from kshot.estimator import FewShotClassifier
from kshot.training.run import load_run

__all__ = ["main"]


@dataclass(frozen=True)
class Predict:
    """Name pictures with a trained run, from a few examples of each class.

    Attributes:
        run: Folder of a trained run.
        support: Folder (or zip) with one folder of example pictures for each class.
        query: Pictures to name.
        top: How many classes to show for each picture.
        device: Where to compute: "auto" takes a GPU when there is one.
        json: Print JSON instead of a table.
    """

    run: tyro.conf.Positional[Path]
    support: Path
    query: tuple[Path, ...]
    top: int = 1
    device: str = "auto"
    json: bool = False


def main(arguments: list[str]) -> int:
    """Parse the arguments, adapt, name the pictures, print; the exit status."""
    flags = tyro.cli(Predict, args=arguments, prog="kshot predict")
    run = load_run(flags.run, flags.device)
    if not run.preparation:
        raise ValueError(f"The run {flags.run} was not trained on pictures, so it cannot name any.")
    preparation = dict(run.preparation)
    pictures, labels = read_support(flags.support, preparation)
    queries = np.stack([prepare_picture(path, **preparation) for path in flags.query])
    classifier = FewShotClassifier(run.learner).fit(pictures, labels)
    probabilities = classifier.predict_proba(queries)
    answers = []
    for path, row in zip(flags.query, probabilities, strict=True):
        best = np.argsort(-row)[: flags.top]
        answers.append(
            {
                "picture": str(path),
                "classes": [
                    {"class": str(classifier.classes_[k]), "probability": float(row[k])}
                    for k in best
                ],
            }
        )
    if flags.json:
        print(json.dumps(answers, indent=2))
        return 0
    rows = [
        [
            answer["picture"],
            ", ".join(f"{c['class']} ({100 * c['probability']:.0f} %)" for c in answer["classes"]),
        ]
        for answer in answers
    ]
    print_table(
        f"{len(set(labels))} classes from {len(labels)} examples", ["picture", "class"], rows
    )
    return 0
