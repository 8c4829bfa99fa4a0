"""The data of the studies, embedded once: intents by MiniLM, Caltech-101 by EfficientNet-lite0."""

import json
import shlex
import sys
import time
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from benchmarks.encoders import efficientnet_lite0, minilm
from kshot import LabelledDataset, encode_cached
from kshot.data.files import find_data
from kshot.evaluation.intervals import MeanInterval
from kshot.evaluation.results import git_revision, machine, merge_results, versions

__all__ = [
    "RESULTS",
    "SETS",
    "Embedded",
    "caltech",
    "intents",
    "load",
    "published_folds",
    "result",
    "store",
    "tf_idf",
]

RESULTS = Path("results/own_data")


class Embedded(NamedTuple):
    """A data set of embeddings, and its ways to be split by classes.

    Attributes:
        name: of the data.
        encoder: what embedded it.
        data: all classes; examples are embeddings.
        folds: for each published split, the classes of train, val and test.
    """

    name: str
    encoder: str
    data: LabelledDataset
    folds: list[dict[str, list[str]]]

    def select(self, names: Sequence[str]) -> LabelledDataset:
        """The classes of some names."""
        place = {name: number for number, name in enumerate(self.data.class_names)}
        return self.data.select([place[name] for name in names])


SETS = ("clinc150", "banking77", "caltech101")


@cache
def load(name: str) -> Embedded:
    """A data set by name; the first time it is embedded, which takes minutes."""
    if name == "caltech101":
        (inputs, labels), encoder = caltech(), efficientnet_lite0()
    else:
        (inputs, labels), encoder = intents(name), minilm()
    spec, rows = str(encoder.spec).rpartition(":")[2], encode_cached(encoder, inputs)
    return Embedded(name, spec, _dataset(rows, labels), published_folds(name))


def tf_idf(name: str) -> Embedded:
    """Intents as weighted counts of words, scaled to length 1: the baseline without an encoder."""
    texts, labels = intents(name)
    vectors = TfidfVectorizer(max_features=3000, sublinear_tf=True).fit_transform(texts)
    rows = np.asarray(vectors.todense(), dtype=np.float32)
    return Embedded(name, "tf_idf", _dataset(rows, labels), published_folds(name))


def published_folds(name: str) -> list[dict[str, list[str]]]:
    """The classes of train, val and test, for each published split of a data set."""
    file = "caltech101/split.json" if name == "caltech101" else f"intents/{name}/folds.json"
    folds = json.loads(find_data(Path(file)).read_text(encoding="utf-8"))
    return folds if isinstance(folds, list) else [folds]


def intents(name: str) -> tuple[list[str], list[str]]:
    """Utterances and their intents."""
    file = find_data(Path(f"intents/{name}/{name}.jsonl"))
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [row["text"] for row in rows], [row["label"] for row in rows]


def caltech() -> tuple[list[bytes], list[str]]:
    """Files of pictures and what they show."""
    with zipfile.ZipFile(find_data(Path("caltech101/caltech101_84px.zip"))) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        return [archive.read(name) for name in names], [name.split("/")[1] for name in names]


def _dataset(rows: np.ndarray, labels: Sequence[str]) -> LabelledDataset:
    names, columns = np.unique(labels, return_inverse=True)
    return LabelledDataset.from_labels(rows, columns, names.tolist())


def result(
    data: Embedded,
    learner: str,
    accuracy: MeanInterval,
    *,
    protocol: str,
    way: int,
    shot: int,
    query_shot: int,
    started: float,
    **more: Any,
) -> dict[str, Any]:
    """A row of results/own_data."""
    return {
        "learner": learner,
        "data": data.name,
        "protocol": protocol,
        "split": "test",
        "backbone": data.encoder,
        "way": way,
        "shot": shot,
        "query_shot": query_shot,
        "episodes": accuracy.n,
        "accuracy": accuracy.mean,
        "ci95": accuracy.half_width,
        "batch_norm": "none",
        "transductive": False,
        "seed": 0,
        "train_seconds": 0.0,
        "train_iterations": 0,
        "seconds": round(time.perf_counter() - started, 1),
        "command": "python -m studies " + shlex.join(sys.argv[1:]),
        "versions": versions(),
        "git": git_revision(),
        "machine": machine(),
        "recipe": None,
        "published": None,
        **more,
    }


def store(file: str, rows: list[dict[str, Any]]) -> None:
    """Add rows to results/own_data/FILE.json, in place of earlier ones of the same thing."""
    merge_results(RESULTS / f"{file}.json", rows)
    for row in rows:
        task = f"{row['data']} {row['protocol']} {row['way']}-way {row['shot']}-shot"
        print(
            f"{task:44} {row['backbone']:18} {row['learner']:10} "
            f"{100 * row['accuracy']:.2f} +- {100 * row['ci95']:.2f}",
            flush=True,
        )
