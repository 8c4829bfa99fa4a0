"""Costs that only a process of its own tells: a first call, and memory at its peak."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

__all__ = ["peak_memory", "told_alone"]


def told_alone(function: str, *arguments: Any, timeout: float | None = None) -> dict[str, Any]:
    """What a function of the benchmarks gives in a process of its own.

    Args:
        function: "module:name"; it gives what JSON can hold.
        arguments: of it, as Python writes them.
        timeout: seconds until it is given up.

    Raises:
        subprocess.TimeoutExpired: when it took longer.
        subprocess.CalledProcessError: when it failed.
    """
    module, _, name = function.partition(":")
    call = f"{name}({', '.join(map(repr, arguments))})"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import json; from {module} import {name}; print(json.dumps({call}))",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=timeout,
        cwd=Path(__file__).parents[1],
    )
    return json.loads(done.stdout.splitlines()[-1])


def peak_memory() -> float | None:
    """In MB; None where there is neither CUDA nor Linux.

    Not getrusage's ru_maxrss: on Linux a process inherits that from the one that started it.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)
