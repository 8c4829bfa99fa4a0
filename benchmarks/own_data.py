"""A predictor of one's own: from a folder to a file, again, one picture, a million embeddings."""

import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from benchmarks.encoders import efficientnet_lite0
from benchmarks.rows import alternate, benchmark_row, write_rows
from kshot import Predictor, load_predictor
from kshot.data.files import find_data

__all__ = ["main"]

SPEC = "python:benchmarks.encoders:efficientnet_lite0"
NUM_ROWS, DIM = 1_000_000, 384


def main() -> None:
    """Measure and write results/benchmarks/own_data.json."""
    with tempfile.TemporaryDirectory() as folder:
        write_rows("own_data", [*_pictures(Path(folder)), *_million(Path(folder))])


def _pictures(folder: Path) -> list[dict[str, Any]]:
    """100 classes of 5 pictures of Caltech-101, by the command line."""
    pictures, held_back = _folder_of_pictures(folder / "pictures")
    out = folder / "objects.kshot"
    environment = os.environ | {"KSHOT_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "kshot", "fit", str(pictures), "--out", str(out), "--force"]

    def fit() -> float:
        start = time.perf_counter()
        subprocess.run(
            [*command, "--encoder", SPEC], env=environment, check=True, stdout=subprocess.DEVNULL
        )
        return time.perf_counter() - start

    def start_only() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        return time.perf_counter() - start

    first, second = fit(), min(fit() for _ in range(3))
    bare = min(start_only() for _ in range(3))
    case = "kshot fit, 100 classes x 5 pictures, EfficientNet-lite0"
    peer_name = "python importing torch"
    rows = [
        benchmark_row(case, first, bare, peer_name, "s"),
        benchmark_row(f"{case}, again", second, bare, peer_name, "s"),
    ]
    encoder = efficientnet_lite0()
    predictor = load_predictor(out, encoder=encoder)
    cache = os.environ.get("KSHOT_CACHE")
    os.environ["KSHOT_CACHE"] = str(folder / "cache")
    paths = sorted(pictures.rglob("*.jpg"))
    labels = [path.parent.name for path in paths]
    embeddings = predictor.support.embeddings
    ours, peer, ratio = alternate(
        lambda: Predictor.fit(paths, labels, encoder=encoder),
        lambda: LogisticRegression(C=10.0).fit(embeddings, list(predictor.support.labels)),
        repeats=5,
    )
    rows.append(
        benchmark_row(
            "the same by Predictor.fit, again, in a running program", ours, peer,
            "one logistic regression by scikit-learn on the embeddings", "s", pairwise=ratio,
        )
    )  # fmt: skip
    os.environ["KSHOT_CACHE"] = str(folder / "other")
    contents = iter(held_back)
    bare_input = torch.zeros(1, 3, 224, 224)
    ours, peer, ratio = alternate(
        lambda: predictor.predict([next(contents)]),
        lambda: encoder.network(bare_input),
        repeats=20,
    )
    os.environ.pop("KSHOT_CACHE") if cache is None else os.environ.update(KSHOT_CACHE=cache)
    rows.append(
        benchmark_row(
            "one new picture named, warm", 1e3 * ours, 1e3 * peer, "bare network", "ms",
            pairwise=ratio,
        )
    )  # fmt: skip
    return rows


def _folder_of_pictures(folder: Path) -> tuple[Path, list[bytes]]:
    """The first five pictures of every class as files; the sixth of each as bytes."""
    held_back = []
    with zipfile.ZipFile(find_data(Path("caltech101/caltech101_84px.zip"))) as archive:
        by_class: dict[str, list[str]] = {}
        for name in sorted(archive.namelist()):
            if name.endswith(".jpg"):
                by_class.setdefault(name.split("/")[1], []).append(name)
        for label, names in by_class.items():
            (folder / label).mkdir(parents=True)
            for name in names[:5]:
                (folder / label / Path(name).name).write_bytes(archive.read(name))
            held_back.append(archive.read(names[5]))
    return folder, held_back


def _million(folder: Path) -> list[dict[str, Any]]:
    """A million cached embeddings named by a centroid head, read a batch at a time."""
    random = np.random.default_rng(0)
    file = folder / "rows.f32"
    with file.open("wb") as stream:
        for _ in range(NUM_ROWS // 10_000):
            stream.write(random.normal(size=(10_000, DIM)).astype(np.float32).tobytes())
    rows = np.memmap(file, np.float32, "r", shape=(NUM_ROWS, DIM))
    X, y = random.normal(size=(50, DIM)), [number // 5 for number in range(50)]
    predictor = Predictor.fit(X, y, head="centroid")
    before = _private_megabytes()
    start = time.perf_counter()
    predictor.predict(rows)
    seconds = time.perf_counter() - start
    grown = _private_megabytes() - before
    start = time.perf_counter()
    weight = random.normal(size=(DIM, 10)).astype(np.float32)
    for first in range(0, NUM_ROWS, 4096):
        rows[first : first + 4096] @ weight
    bare = time.perf_counter() - start
    case = f"{NUM_ROWS:,} cached embeddings of {DIM} numbers named"
    return [
        benchmark_row(
            case, seconds, bare, "one matrix product over the same map", "s",
            private_megabytes=round(grown, 1), data_megabytes=round(rows.nbytes / 1e6, 1),
        )
    ]  # fmt: skip


def _private_megabytes() -> float:
    """The process's largest memory so far without pages of files, where the system tells it."""
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return float(fields["RssAnon"].split()[0]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
