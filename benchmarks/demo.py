"""The demo under load: fifty visitors drawing for a minute, round trips, memory, first paint."""

import asyncio
import base64
import io
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image, ImageDraw

from benchmarks.rows import benchmark_row, write_rows

__all__ = ["main"]

VISITORS, SECONDS = 50, 60.0
PAUSE = 0.5  # seconds from one prediction of a visitor to the next, strokes and pauses alike
CLASSES, SHOTS = 5, 5


def main() -> None:
    """Measure and write results/benchmarks/demo.json."""
    with _server() as (address, process):
        rows = [*_round_trips(address), *asyncio.run(_crowd(address, process.pid))]
        rows += _first_paint(address)
    write_rows("demo", rows)


@contextmanager
def _server() -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """`kshot demo` on a free port, its rate for a crowd behind one address."""
    command = [sys.executable, "-m", "kshot", "demo", "--port", "0", "--rate", "10000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        yield line.split(" at ")[1].split()[0], process
    finally:
        process.terminate()
        process.wait()


def _drawing(random: np.random.Generator, kind: int) -> str:
    """A wobbling polygon or spiral as the page sends it, base64 of a PNG."""
    angle = np.linspace(0, 2 * np.pi * (1 + kind % 2), 3 + 2 * kind)
    radius = np.linspace(20 + 8 * kind, 60, len(angle)) + random.normal(0, 3, len(angle))
    points = [(80 + r * np.cos(a), 80 + r * np.sin(a)) for a, r in zip(angle, radius, strict=True)]
    picture = Image.new("RGB", (160, 160), "white")
    ImageDraw.Draw(picture).line(points, fill="black", width=5, joint="curve")
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def _class_set(random: np.random.Generator, owner: str) -> list[dict[str, Any]]:
    return [
        {"name": f"{owner} {kind}", "pictures": [_drawing(random, kind) for _ in range(SHOTS)]}
        for kind in range(CLASSES)
    ]


def _round_trips(address: str) -> list[dict[str, Any]]:
    """One visitor alone: adapt to 5 classes of 5 drawings and predict; predict again."""
    random = np.random.default_rng(0)
    rows = []
    with httpx.Client(base_url=address, timeout=60) as client:
        for learner in ("protonet", "maml"):
            both, again = [], []
            for _ in range(12):
                body = {"learner": learner, "classes": _class_set(random, "a")}
                start = time.perf_counter()
                session = client.post("/api/adapt", json=body).json()["session"]
                asked = {"session": session, "pictures": [_drawing(random, 2)]}
                client.post("/api/predict", json=asked).raise_for_status()
                middle = time.perf_counter()
                client.post("/api/predict", json=asked).raise_for_status()
                both.append(middle - start)
                again.append(time.perf_counter() - middle)
            case = f"{learner}: adapt to {CLASSES} classes x {SHOTS} drawings and predict"
            load = {"load": os.getloadavg()[0]}
            rows += [
                benchmark_row(case, 1e3 * statistics.median(both), None, "", "ms", **load),
                benchmark_row(
                    f"{learner}: one prediction more",
                    1e3 * statistics.median(again), None, "", "ms", **load,
                ),
            ]  # fmt: skip
    return rows


async def _crowd(address: str, pid: int) -> list[dict[str, Any]]:
    """Fifty visitors, each with classes of their own, who draw all the while."""
    times: list[float] = []
    errors: list[str] = []
    memory: list[float] = []
    end = time.perf_counter() + SECONDS

    async def visit(number: int, client: httpx.AsyncClient) -> None:
        random = np.random.default_rng(number)
        await asyncio.sleep(random.uniform(0, 5))
        classes = _class_set(random, f"visitor {number}")
        drawings = [_drawing(random, kind) for kind in range(CLASSES)]
        answer = await client.post("/api/adapt", json={"classes": classes})
        if answer.status_code != 200:
            errors.append(answer.text)
            return
        session = answer.json()["session"]
        while time.perf_counter() < end:
            await asyncio.sleep(PAUSE * random.uniform(0.5, 1.5))
            body = {"session": session, "pictures": [drawings[random.integers(CLASSES)]]}
            start = time.perf_counter()
            answer = await client.post("/api/predict", json=body)
            times.append(time.perf_counter() - start)
            if answer.status_code != 200:
                errors.append(answer.text)
                continue
            [said] = answer.json()["predictions"]
            if not said["class"].startswith(f"visitor {number} "):
                errors.append(f"visitor {number} was told of {said['class']}")

    async def watch() -> None:
        await asyncio.sleep(10)  # every visitor has adapted
        while time.perf_counter() < end:
            memory.append(_megabytes(pid))
            await asyncio.sleep(2)

    before = _processor_seconds(pid)
    async with _client(address) as client, asyncio.TaskGroup() as group:
        for number in range(VISITORS):
            group.create_task(visit(number, client))
        group.create_task(watch())
    for error in sorted(set(errors))[:5]:
        print(f"  error: {error}")
    case = f"{VISITORS} visitors drawing for {SECONDS:.0f} s"
    load = {"load": os.getloadavg()[0], "predictions": len(times), "errors": len(errors)}
    each = 1e3 * (_processor_seconds(pid) - before) / len(times)
    third = max(1, len(memory) // 3)
    growth = statistics.mean(memory[-third:]) - statistics.mean(memory[:third])
    return [
        benchmark_row(
            f"{case}: 95 % of predictions within",
            1e3 * float(np.quantile(times, 0.95)), None, "", "ms", **load,
        ),
        benchmark_row(
            f"{case}: median prediction", 1e3 * statistics.median(times), None, "", "ms", **load
        ),
        benchmark_row(
            f"{case}: the server's processor time for each", each, None, "", "ms", **load
        ),
        benchmark_row(
            f"{case}: memory at the end less at 10 s", growth, memory[0], "memory at 10 s", "MB"
        ),
    ]  # fmt: skip


@asynccontextmanager
async def _client(address: str) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=VISITORS, max_keepalive_connections=VISITORS)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=60) as client:
        yield client


def _megabytes(pid: int) -> float:
    """Memory of a process that is in use."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1]) / 1e3
    raise ValueError(f"process {pid} tells no VmRSS")


def _processor_seconds(pid: int) -> float:
    """Time that a process has computed, on all processors together: the same on a busy machine."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _first_paint(address: str) -> list[dict[str, Any]]:
    """When the page is first seen in a headless browser; nothing without one."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        browser = None
    if browser is None:
        print("  first paint: no browser here")
        return []
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        times = []
        for _ in range(3):
            page = opened.new_page()
            page.goto(address, wait_until="load")
            script = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
            while (painted := page.evaluate(script)) is None:
                page.wait_for_timeout(20)
            times.append(painted)
            page.close()
        opened.close()
    load = {"load": os.getloadavg()[0]}
    return [benchmark_row("first contentful paint", min(times), None, "", "ms", **load)]
