"""One meta-training step of MAML, and its evaluation: kshot beside a plain loop and its peers."""

import importlib
import importlib.metadata
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.alone import peak_memory, told_alone
from benchmarks.contestants import (
    ADAPTATIONS,
    COMPILED,
    CONTESTANTS,
    DEVICE,
    FOR_TRAINING,
    PACKAGES,
    PEERS,
    PLAIN,
    Case,
    Step,
    build,
)
from benchmarks.rows import benchmark_row, read_rows, write_rows
from kshot import MLP, Conv4, mean_squared_error
from kshot.learners.task_map import choose_strategy, forward_flops

__all__ = ["CASES", "cost", "main"]


def _strided() -> nn.Module:
    return Conv4((1, 28, 28), strided=True)


ONE_STEP = Case(
    _strided, (1, 28, 28), tasks=32, way=5, support=5, query=5, num_steps=1, inner_lr=0.4
)
CASES = {
    "strided": ONE_STEP,
    "pooled": replace(ONE_STEP, encoder=lambda: Conv4((1, 28, 28))),
    "20way": replace(ONE_STEP, tasks=16, way=20, support=20, query=20, num_steps=5, inner_lr=0.1),
    "84x84": Case(
        lambda: Conv4((3, 84, 84), hidden=32),
        (3, 84, 84),
        tasks=4,
        way=5,
        support=25,
        query=75,
        num_steps=5,
        inner_lr=0.01,
    ),
    "sinusoid": Case(
        lambda: MLP((1,)),
        (1,),
        tasks=25,
        way=1,
        support=10,
        query=10,
        num_steps=1,
        inner_lr=0.01,
        loss=mean_squared_error,
    ),
    "evaluation": replace(ONE_STEP, tasks=1000, query=75, evaluation=True),
}

LEAST_SECONDS = 0.2  # steps shorter than this are timed several in a row
MOST_STEPS_COMPILED = 1  # a graph grows with its steps, and the time to compile it too
EXACT = 1e-6  # in float64


def main(
    cases: Sequence[str] = tuple(CASES),
    repeats: int = 5,
    tasks: int = 0,
    compile_limit: float = 900,
) -> None:
    """Measure and write results/benchmarks/inner_loop.json, or inner_loop_cuda.json on a GPU.

    Args:
        cases: names of `CASES` to measure; rows of the others stay in the file, and each case is
            written when it is done.
        repeats: how often each contestant is timed, in turn.
        tasks: another number of tasks than the cases have, for a quick look; 0 is their own.
        compile_limit: seconds that a compilation may take; 0 leaves out what is compiled.
    """
    _report_missing()
    rows: list[dict[str, Any]] = []
    chosen = {name: replace(CASES[name], tasks=tasks or CASES[name].tasks) for name in cases}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        costs = _costs(chosen, compile_limit)
        for name, case in chosen.items():
            rows += _measure(name, case, repeats, costs[name])
            measured = {row["what"] for row in rows}
            stored = read_rows("inner_loop", DEVICE.type)
            others = [row for row in stored if row["what"] not in measured]
            write_rows("inner_loop", rows, others, DEVICE.type)
    _print_table(read_rows("inner_loop", DEVICE.type))


def _measure(
    name: str, case: Case, repeats: int, told: dict[str, dict[str, Any] | str]
) -> list[dict[str, Any]]:
    """Check every contestant of a case, then time them in turn."""
    conditions = _conditions(name, case)
    exact = _float64_differences(case)
    costs = {each: cost for each, cost in told.items() if not isinstance(cost, str)}
    skipped = {each: reason for each, reason in told.items() if isinstance(reason, str)}
    steps = {contestant: build(case, contestant) for contestant in costs}
    again = {each: _first_call(step) for each, step in steps.items() if each in COMPILED}
    found = {contestant: step() for contestant, step in steps.items()}
    times = _times(steps, repeats)
    rows = []
    for contestant in steps:
        more: dict[str, Any] = {
            "peak_memory_mb": costs[contestant]["memory"],
            "float64_difference_from_plain_loop": exact.get(contestant),
            "float32_difference_from_plain_loop": _difference(found[contestant], found[PLAIN]),
        }
        if contestant in COMPILED:
            more["float32_difference_from_eager"] = _difference(found[contestant], found["kshot"])
            more["first_call_s"] = costs[contestant]["seconds"]
            more |= again[contestant]
        if contestant in PACKAGES:
            more["peer_version"] = importlib.metadata.version(PACKAGES[contestant])
        rows.append(_row(name, contestant, times, {**more, "skipped": skipped, **conditions}))
    return rows


def _row(
    name: str, contestant: str, times: dict[str, list[float]], more: dict[str, Any]
) -> dict[str, Any]:
    """A contestant beside the fastest peer and beside the plain loop."""
    medians = {each: statistics.median(seconds) for each, seconds in times.items()}
    best = min((peer for peer in PEERS if peer in medians), key=lambda peer: medians[peer])
    ours, pairs = times[contestant], zip(times[contestant], times[best], strict=True)
    return benchmark_row(
        f"{name}: {contestant}",
        medians[contestant] * 1e3,
        medians[best] * 1e3,
        best,
        "ms",
        contestant=contestant,
        pairwise_ratio=statistics.median(seconds / peer for seconds, peer in pairs),
        ratio_to_plain_loop=medians[contestant] / medians[PLAIN],
        fastest_ms=min(ours) * 1e3,
        slowest_ms=max(ours) * 1e3,
        repeats=len(ours),
        **more,
    )


def _conditions(name: str, case: Case) -> dict[str, Any]:
    flops = forward_flops(case.encoder(), torch.zeros(case.support, *case.shape))
    return {
        "forward_flops_of_a_task": flops,
        "auto_chooses": "vmap" if DEVICE.type == "cuda" else choose_strategy(flops),
        "what": name,
        "tasks": case.tasks,
        "way": case.way,
        "support": case.support,
        "query": case.query,
        "num_steps": case.num_steps,
        "dtype": "float32",
        "device": torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0],
        "gflop_of_a_step": _gflop(case),
        "matrix_product_gflop_per_s": _matrix_product_speed(),
    }


def _gflop(case: Case) -> float:
    """The convolutions and matrix products of a step of the plain loop, in GFLOP."""
    step = build(replace(case, tasks=1), PLAIN)
    with FlopCounterMode(display=False) as counter:
        step()
    return case.tasks * counter.get_total_flops() / 1e9


def _matrix_product_speed(size: int = 2048) -> float:
    """GFLOP/s of one large matrix product: what no step of convolutions can exceed by much."""
    a, b = torch.randn(2, size, size, device=DEVICE)
    seconds = statistics.median(_seconds(lambda: [a @ b]) for _ in range(7))
    return 2 * size**3 / seconds / 1e9


def _contestants(case: Case) -> Iterable[str]:
    if not case.evaluation:
        return CONTESTANTS
    return [name for name in CONTESTANTS if name not in COMPILED and name not in FOR_TRAINING]


def _report_missing() -> None:
    for peer in ADAPTATIONS:
        if peer not in PEERS:
            print(f"{peer} is not installed and is left out: pip install 'kshot[benchmark]'")


def _float64_differences(case: Case) -> dict[str, float]:
    """How far each contestant is from the plain loop, on a few tasks in float64."""
    few = replace(case, tasks=min(case.tasks, 4 if case.evaluation else 2))
    eager = [name for name in _contestants(case) if name not in COMPILED]
    found = {name: build(few, name, torch.float64)() for name in eager}
    differences = {name: _difference(each, found[PLAIN]) for name, each in found.items()}
    wrong = {name: value for name, value in differences.items() if not value < EXACT}
    if wrong:
        raise SystemExit(f"Not timed, since these do not compute what the plain loop does: {wrong}")
    return differences


def _difference(found: list[Tensor], reference: list[Tensor]) -> float:
    """The largest difference of an entry, relative to the largest entry."""
    pairs = list(zip(found, reference, strict=True))
    difference = max((a - b).abs().max().item() for a, b in pairs)
    return difference / max(b.abs().max().item() for _, b in pairs)


def _seconds(step: Step, number: int = 1) -> float:
    _wait()
    start = time.perf_counter()
    for _ in range(number):
        step()
    _wait()
    return (time.perf_counter() - start) / number


def _wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def _times(steps: dict[str, Step], repeats: int) -> dict[str, list[float]]:
    """Seconds of each step, measured in turn, so that what else runs slows all of them."""
    numbers = {name: max(1, round(LEAST_SECONDS / _seconds(step))) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            times[name].append(_seconds(step, numbers[name]))
    return times


def _costs(
    cases: dict[str, Case], compile_limit: float
) -> dict[str, dict[str, dict[str, Any] | str]]:
    """What each contestant of each case costs in a process of its own, or how it failed there.

    One after the other on a CPU, which they would share; together on a GPU, where most of the time
    goes into starting and the memory is each process's own.
    """
    workers = (os.cpu_count() or 1) if DEVICE.type == "cuda" else 1
    with ThreadPoolExecutor(workers) as pool:
        told = {
            name: {
                contestant: pool.submit(_cost_alone, name, contestant, case, compile_limit)
                for contestant in _contestants(case)
            }
            for name, case in cases.items()
        }
    return {
        name: {contestant: cost.result() for contestant, cost in each.items()}
        for name, each in told.items()
    }


def _cost_alone(
    name: str, contestant: str, case: Case, compile_limit: float
) -> dict[str, Any] | str:
    if contestant in COMPILED and (not compile_limit or case.num_steps > MOST_STEPS_COMPILED):
        return "left out: no time was given to compile it, or it has many steps"
    try:
        return told_alone(
            "benchmarks.inner_loop:cost",
            *(name, contestant, case.tasks),
            timeout=compile_limit if contestant in COMPILED else None,
        )
    except subprocess.TimeoutExpired:
        reason = f"not compiled within {compile_limit:.0f} s"
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().splitlines()[-1]
    print(f"{name}: {contestant} is left out: {reason}")
    return reason


def cost(name: str, contestant: str, tasks: int) -> dict[str, Any]:
    """What a first step costs: its seconds, and the memory that it adds at its peak, in MB.

    A step on two examples comes before, to load what any step loads. Compiled contestants have
    none, since compiling is their cost; it takes more memory than the step, which is not told.
    """
    case = replace(CASES[name], tasks=tasks)
    if contestant not in COMPILED:
        build(replace(case, tasks=2, support=2, query=2), contestant)()
    step = build(case, contestant)
    before = peak_memory()
    seconds = _seconds(step)
    after = peak_memory()
    untold = contestant in COMPILED
    memory = None if untold or before is None or after is None else after - before
    return {"seconds": seconds, "memory": memory}


def _first_call(step: Step) -> dict[str, float]:
    """The first call of a compiled step, after another process compiled the same."""
    counts = importlib.import_module("torch._dynamo.utils").counters["inductor"]
    hits, misses = counts["fxgraph_cache_hit"], counts["fxgraph_cache_miss"]
    return {
        "first_call_in_second_process_s": _seconds(step),
        "graphs_from_cache": counts["fxgraph_cache_hit"] - hits,
        "graphs_not_from_cache": counts["fxgraph_cache_miss"] - misses,
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    """Contestants by cases: milliseconds, and how many times as long as the plain loop."""
    measured = {row["what"] for row in rows}
    cases = [case for case in CASES if case in measured]
    cells = {
        (row["contestant"], row["what"]): f"{row['ours']:,.1f} ({row['ratio_to_plain_loop']:.2f})"
        for row in rows
    }
    print("\nmilliseconds a step (and that divided by the plain loop's)\n")
    print(f"| | {' | '.join(cases)} |")
    print("| --- " * (len(cases) + 1) + "|")
    for name in CONTESTANTS:
        print(f"| {name} | {' | '.join(cells.get((name, case), '-') for case in cases)} |")
