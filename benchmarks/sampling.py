"""Episodes a second on one core, beside a pipeline that decodes every picture when it is drawn."""

import os
import random
import resource
import tempfile
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.rows import alternate, benchmark_row, write_rows
from kshot import EpisodeConfig, omniglot

__all__ = ["main", "unpacked"]

META_BATCH = 32


def main() -> None:
    """Measure and write results/benchmarks/sampling.json; needs Omniglot in KSHOT_DATA."""
    torch.set_num_threads(1)
    before = _memory()
    data = omniglot(protocol="vinyals")
    sampler = data.sampler("train", EpisodeConfig(way=5, shot=1, query_shot=15), seed=0)
    for start in range(0, 64 * META_BATCH, META_BATCH):  # touches nearly every picture
        sampler.sample(range(start, start + META_BATCH))
    memory = _memory() - before
    with tempfile.TemporaryDirectory() as folder:
        files = unpacked(Path(folder))
        ours, peer, ratio = alternate(
            lambda: [sampler.sample(range(n, n + META_BATCH)) for n in range(0, 256, META_BATCH)],
            lambda: _decoded_batch(files, META_BATCH),
        )
    rows = [
        benchmark_row(
            "Omniglot 5-way 1-shot 15-query, tensors ready, one core",
            256 / ours,
            META_BATCH / peer,
            "Pillow, per sample",
            "episodes/s",
            pairwise_ratio=256 / META_BATCH / ratio,
        ),
        benchmark_row(
            "all of Omniglot with rotations, resident memory added",
            memory,
            400.0,
            "allowed",
            "MB",
        ),
    ]
    write_rows("sampling", rows)


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def unpacked(folder: Path) -> dict[str, list[Path]]:
    """The official archives' pictures as files, by class."""
    if "KSHOT_DATA" not in os.environ:
        raise SystemExit("Set KSHOT_DATA to a folder that has omniglot/images_background.zip.")
    source = Path(os.environ["KSHOT_DATA"]) / "omniglot"
    files = defaultdict(list)
    for part in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(source / f"{part}.zip") as archive:
            archive.extractall(folder)
    for path in sorted(folder.rglob("*.png")):
        files[path.parent.as_posix()].append(path)
    return dict(files)


def _decoded_batch(files: dict[str, list[Path]], episodes: int) -> torch.Tensor:
    """Open, turn, resize and convert every picture of every episode, as peers do."""
    batch = []
    classes = sorted(files)
    for _ in range(episodes):
        pictures = []
        for name in random.sample(classes, 5):
            turn = 90 * random.randrange(4)
            for path in random.sample(files[name], 16):
                image = Image.open(path).convert("L").rotate(turn).resize((28, 28))
                pictures.append(torch.from_numpy(1 - np.asarray(image, dtype=np.float32) / 255))
        batch.append(torch.stack(pictures))
    return torch.stack(batch)
