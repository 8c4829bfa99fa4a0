"""Training of metric learners beside easyfsl's: end to end from disk, and the bare step."""

import gc
import json
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.alone import peak_memory, told_alone
from benchmarks.rows import alternate, benchmark_row, write_rows
from benchmarks.sampling import unpacked
from kshot import (
    Conv4,
    EpisodeConfig,
    Episodes,
    FeatureMaps,
    MatchingNet,
    ProtoNet,
    RelationNet,
    omniglot,
)
from kshot.training.compiled import CompiledMetaLoss

__all__ = ["added_memory", "main"]

WAY, SHOT, QUERY = 5, 1, 15
ITERATIONS = 16
LEARNERS = ("protonet", "matching", "relation")
ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "conv4": lambda: Conv4((1, 28, 28)),
    "conv4, strided": lambda: Conv4((1, 28, 28), strided=True),
    "feature maps": lambda: FeatureMaps((1, 28, 28)),
}
CASES = [
    ("protonet", "conv4", False),
    ("protonet", "conv4", True),
    ("protonet", "conv4, strided", False),
    ("protonet", "conv4, strided", True),
    ("matching", "conv4", False),
    ("matching", "conv4, strided", False),
    ("relation", "feature maps", False),
]
"""Learner, encoder, and whether kshot's step is compiled."""


def main() -> None:
    """Write results/benchmarks/metric.json; needs easyfsl, and Omniglot in KSHOT_DATA."""
    data = omniglot(protocol="vinyals")
    sampler = data.sampler("train", EpisodeConfig(WAY, SHOT, QUERY), seed=0)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        loader = _easyfsl_loader(unpacked(Path(folder)), Path(folder))
        for name, encoder, compiled in CASES:
            ours, theirs = _ours(name, encoder, compiled), _theirs(name, encoder)
            case = f"{name} on {encoder}{', compiled' * compiled}"
            rows.append(
                _row(
                    f"{case}: end to end, from files to steps",
                    lambda step=ours: [step(sampler.sample([n])) for n in range(ITERATIONS)],
                    lambda step=theirs: [step(*batch[:4]) for batch in loader],
                    ITERATIONS,
                )
            )
            episodes = [sampler.sample([n]) for n in range(ITERATIONS)]
            mine, other = cycle(episodes), cycle(episodes)
            rows.append(  # a step of one, then of the other: the machine changes with time
                _row(
                    f"{case}: the bare step",
                    lambda step=ours, drawn=mine: step(next(drawn)),
                    lambda step=theirs, drawn=other: step(*_as_lists(next(drawn))),
                    1,
                )
            )
    for name in LEARNERS:
        told = told_alone("benchmarks.metric:added_memory", name)
        rows.append(
            benchmark_row(
                f"{name}: comparing 20-way 5-shot 15-query, 16 tasks, memory added",
                told["comparison"],
                told["embeddings"],
                "that of the embeddings themselves",
                "MB",
            )
        )
    write_rows("metric", rows)


def _row(
    case: str, ours: Callable[[], Any], theirs: Callable[[], Any], episodes: int
) -> dict[str, Any]:
    """What two functions make of some episodes each, in turn."""
    seconds, peer, ratio = alternate(ours, theirs, repeats=7 if episodes > 1 else 80)
    return benchmark_row(
        case,
        episodes / seconds,
        episodes / peer,
        "easyfsl",
        "episodes/s",
        pairwise_ratio=1 / ratio,
        threads=torch.get_num_threads(),
    )


def added_memory(name: str) -> dict[str, float]:
    """The memory that comparing adds at its peak, there and back, and that of embeddings."""
    tasks, way, shot, query = 16, 20, 5, 15
    learner = _learner(name, "feature maps" if name == "relation" else "conv4")
    dim = learner.encoder.embedding_dim
    targets = torch.eye(way).repeat(1, shot, 1).expand(tasks, -1, -1)
    support = torch.randn(tasks, way * shot, dim, requires_grad=True)
    queries = torch.randn(tasks, way * query, dim, requires_grad=True)
    small = learner.summarize(support[:1, :way], targets[:1, :way], None)  # loads what any loads
    learner.compare(small, queries[:1, :2], None).sum().backward()
    gc.collect()
    before = peak_memory()
    summary = learner.summarize(support, targets, None)
    learner.compare(summary, queries, None).logsumexp(-1).sum().backward()
    after = peak_memory()
    assert before is not None and after is not None, "memory is told on Linux only"
    embeddings = (support.numel() + queries.numel()) * 4 / 2**20
    return {"comparison": after - before, "embeddings": embeddings}


def _learner(name: str, encoder: str) -> Any:
    torch.manual_seed(0)
    net = ENCODERS[encoder]()
    if name == "matching":  # as easyfsl has it: in full context, with as many reads as examples
        return MatchingNet(net, full_context=True, num_reads=WAY * SHOT)
    return ProtoNet(net) if name == "protonet" else RelationNet(net)


def _ours(name: str, encoder: str, compiled: bool = False) -> Callable[[Episodes], None]:
    learner = _learner(name, encoder).train()
    meta_loss = CompiledMetaLoss(learner) if compiled else learner
    optimizer = torch.optim.Adam(learner.parameters(), 1e-3)

    def step(episodes: Episodes) -> None:
        optimizer.zero_grad()
        meta_loss(episodes).backward()
        optimizer.step()

    return step


def _theirs(name: str, encoder: str) -> Callable[[Tensor, Tensor, Tensor, Tensor], None]:
    _allow_torchvision()
    from easyfsl import methods

    torch.manual_seed(0)
    net: Any = ENCODERS[encoder]()
    if name == "protonet":
        learner = methods.PrototypicalNetworks(net)
    elif name == "matching":
        learner = methods.MatchingNetworks(net, feature_dimension=net.embedding_dim)
    else:
        maps = nn.Sequential(net, nn.Unflatten(1, (64, 5, 5)))
        learner = methods.RelationNetworks(maps, feature_dimension=64)
    learner.train()
    optimizer = torch.optim.Adam(learner.parameters(), 1e-3)

    def step(support: Tensor, labels: Tensor, queries: Tensor, answers: Tensor) -> None:
        optimizer.zero_grad()
        learner.process_support_set(support, labels)
        scores = learner(queries)
        if name == "matching":
            loss = nn.functional.nll_loss(scores, answers)
        elif name == "relation":
            loss = nn.functional.mse_loss(scores, nn.functional.one_hot(answers, WAY).float())
        else:
            loss = nn.functional.cross_entropy(scores, answers)
        loss.backward()
        optimizer.step()

    return step


def _as_lists(episodes: Episodes) -> Iterator[Tensor]:
    """Pictures and labels of one task, as easyfsl takes them: examples of a class together."""
    for examples in episodes[:2]:
        order = examples.targets[0].argmax(-1).argsort(stable=True)
        yield examples.inputs[0][order]  # pyright: ignore
        yield examples.targets[0].argmax(-1)[order]


def _easyfsl_loader(files: dict[str, list[Path]], folder: Path) -> DataLoader:
    """Its data set of folders, which decodes a picture whenever it is drawn, and its sampler."""
    _allow_torchvision()
    from easyfsl.datasets import EasySet
    from easyfsl.samplers import TaskSampler
    from torchvision import transforms

    roots = list(files)
    specs = folder / "specs.json"
    specs.write_text(json.dumps({"class_names": roots, "class_roots": roots}))
    prepared = transforms.Compose(
        [transforms.Grayscale(), transforms.Resize((28, 28)), transforms.ToTensor()]
    )
    random.seed(0)
    # easyfsl 1.5 passes an argument that PyTorch's samplers no longer take.
    torch.utils.data.Sampler.__init__ = lambda self, data_source=None: None  # pyright: ignore
    dataset = EasySet(specs, transform=prepared)
    sampler = TaskSampler(dataset, WAY, SHOT, QUERY, n_tasks=ITERATIONS)
    return DataLoader(dataset, batch_sampler=sampler, collate_fn=sampler.episodic_collate_fn)


def _allow_torchvision() -> None:
    """Beside PyTorch's CPU build torchvision imports only if its operators exist; none is used."""
    while True:
        try:
            import torchvision  # noqa: F401
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define(f"{missing[1]}(Tensor x) -> Tensor")
            _KEPT.append(library)
            for module in [name for name in sys.modules if name.startswith("torchvision")]:
                del sys.modules[module]
        else:
            return


_KEPT: list[torch.library.Library] = []
