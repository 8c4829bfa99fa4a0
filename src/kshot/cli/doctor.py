"""`kshot doctor`: what is installed and found here, and whether it computes what it should."""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import tyro
from torch import nn

from kshot.backbones.conv4 import Conv4
from kshot.backbones.heads import WithHead
from kshot.config import EpisodeConfig
from kshot.data.cache import cache_folder
from kshot.data.dataset import LabelledDataset
from kshot.data.sampler import EpisodeSampler
from kshot.device import choose_device
from kshot.episodes import Episodes
from kshot.evaluation.evaluate import evaluate
from kshot.evaluation.results import git_revision, machine, versions
from kshot.extras import EXTRAS, install_command, missing_modules
from kshot.learners.metric.prototypical import ProtoNet
from kshot.learners.optimization.maml import MAML
from kshot.testing import check_strategies, check_task_independence, meta_gradient_error

__all__ = ["CHECKS", "main"]

LARGEST_ERROR = 1e-6
"""Relative error of a meta-gradient against central differences in float64."""

FIRST_EPISODES = "9a4a334bc1e365cc98aed2bb5a8bd52050d3968f12cb20c5f7b1fa15a3f35588"
"""sha256 of what the sampler draws below, on every machine."""


@dataclass(frozen=True)
class Doctor:
    """Show versions, device and data found, and check in a minute that learning is exact.

    Exit status 1 when a check fails; it says what to do.

    Attributes:
        quick: Leave the self-check out.
    """

    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


class Check(NamedTuple):
    """Something that has to hold.

    Attributes:
        name: what holds, in a few words.
        run: says how well it holds; raises an Exception where it does not.
        advice: what to do then.
    """

    name: str
    run: Callable[[], str]
    advice: str


def main(arguments: list[str]) -> int:
    """Parse the arguments, look, check, print; 1 when a check failed."""
    flags = tyro.cli(Doctor, args=arguments, prog="kshot doctor")
    _print_place()
    if flags.quick:
        return 0
    failed = 0
    print("\nself-check")
    for check in CHECKS:
        start = time.perf_counter()
        try:
            said = check.run()
        except Exception as error:  # whatever is wrong with an installation, it is to be told
            failed += 1
            print(f"  FAILED  {check.name}: {error}\n          {check.advice}")
            continue
        print(f"  ok      {check.name}: {said} ({time.perf_counter() - start:.1f} s)")
    if failed:
        print(f"\n{failed} of {len(CHECKS)} checks failed: results from here cannot be trusted.")
        return 1
    print(f"\nAll {len(CHECKS)} checks passed.")
    return 0


def _print_place() -> None:
    """Versions, device, extras and data."""
    found = versions()
    print("versions  " + ", ".join(f"{name} {version}" for name, version in found.items()))
    print(f"source    {git_revision() or 'installed package'}")
    print(f"machine   {machine()}")
    print(f"device    {choose_device('auto')}, {torch.get_num_threads()} threads on the CPU")
    for extra in EXTRAS:
        missing = missing_modules(extra)
        state = f"{install_command(*missing)}, to have it" if missing else "installed"
        print(f"extra     {extra}: {state}")
    print(f"cache     {cache_folder()}")
    print(f"data      {_data_found()}")


def _data_found() -> str:
    chosen = os.environ.get("KSHOT_DATA")
    if not chosen:
        return "KSHOT_DATA is not set; glyphs and sinusoid need none, Omniglot is downloaded"
    folder = Path(chosen).expanduser()
    if not folder.is_dir():
        return f"KSHOT_DATA is {folder}, which is not a folder: correct or unset it"
    inside = sorted(path.name for path in folder.iterdir() if path.is_dir())
    return f"{folder}: {', '.join(inside) or 'no folder inside'}"


def _sampler(side: int = 16, way: int = 3, shot: int = 2) -> EpisodeSampler:
    """Episodes of pictures of noise, whose classes say nothing of them."""
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (200, 1, side, side), dtype=np.uint8)
    data = LabelledDataset.from_labels(pictures, np.repeat(np.arange(10), 20))
    return EpisodeSampler(data, EpisodeConfig(way, shot, query_shot=4), seed=0, split="doctor")


def _episodes(side: int = 16) -> Episodes:
    """Two tasks of noise."""
    return _sampler(side).sample([0, 1])


def _gradients_are_exact() -> str:
    """Second derivatives through vmap and BatchNorm, against central differences."""
    torch.manual_seed(0)
    smooth = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh())
    smooth.embedding_dim = 8  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    learners = {
        "maml": MAML(WithHead(smooth, 3), inner_lr=0.1, num_inner_steps=2, strategy="vmap"),
        "maml with BatchNorm": MAML(
            WithHead(Conv4((1, 16, 16), hidden=3), 3), inner_lr=0.1, strategy="vmap"
        ),
        "protonet": ProtoNet(Conv4((1, 16, 16), hidden=3)),
    }
    worst = 0.0
    for name, learner in learners.items():
        episodes = _episodes(side=8 if name == "maml" else 16)
        # A kink of ReLU may spoil one difference, a wrong gradient spoils all.
        error = min(meta_gradient_error(learner, episodes, step=h) for h in (1e-5, 1e-6, 1e-7))
        if not error < LARGEST_ERROR:
            raise AssertionError(f"{name} is {error:.1e} off central differences (relative)")
        worst = max(worst, error)
    return f"at most {worst:.0e} off central differences"


def _vmap_equals_a_loop() -> str:
    torch.manual_seed(0)
    learner = MAML(WithHead(Conv4((1, 16, 16), hidden=4), 3), inner_lr=0.1)
    check_strategies(learner, _episodes())
    return "predictions, loss and gradient agree"


def _nothing_leaks() -> str:
    """What has nothing to learn is at chance, and tasks of a batch know nothing of each other."""
    torch.manual_seed(0)
    learner = ProtoNet(Conv4((1, 16, 16), hidden=4))
    check_task_independence(learner, _episodes())
    sampler = _sampler(way=5, shot=1)
    interval = evaluate(learner, sampler, num_episodes=300).interval
    if abs(interval.mean - 0.2) > 2.5 * interval.half_width:
        raise AssertionError(
            f"on noise, accuracy must be at chance, 20 %, and is {100 * interval.mean:.1f} "
            f"+- {100 * interval.half_width:.1f} %"
        )
    return f"noise is named right {100 * interval.mean:.1f} % of times, chance is 20 %"


def _sampling_is_determined() -> str:
    import hashlib

    sampler = _sampler(way=5, shot=2)
    together, alone = sampler.indices([3, 4, 5]), sampler.indices([4])
    for name, drawn in together._asdict().items():
        if not np.array_equal(drawn[1:2], getattr(alone, name)):
            raise AssertionError(f"an episode drawn alone has other {name} than in a batch")
    drawn = [np.ascontiguousarray(part, dtype="<i8").tobytes() for part in together]
    digest = hashlib.sha256(b"".join(drawn)).hexdigest()
    if digest != FIRST_EPISODES:
        raise AssertionError(f"episodes differ from those of every other machine ({digest[:12]})")
    return "the same episodes as everywhere"


def _cache_is_writable() -> str:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"kshot")
    return str(folder)


_REPORT = "Install the versions of constraints.txt; if it stays, report it with these lines."

CHECKS: tuple[Check, ...] = (
    Check("the cache can be written", _cache_is_writable, "Set KSHOT_CACHE to a folder of yours."),
    Check("sampling is determined", _sampling_is_determined, _REPORT),
    Check("meta-gradients are exact", _gradients_are_exact, _REPORT),
    Check("vmap equals a loop", _vmap_equals_a_loop, _REPORT),
    Check("nothing leaks from query to prediction", _nothing_leaks, _REPORT),
)
"""The self-check."""
