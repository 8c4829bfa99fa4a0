"""What starting costs: `import kshot` beside `import torch`, and `kshot --help`."""

import subprocess
import sys

from benchmarks.rows import alternate, benchmark_row, write_rows

__all__ = ["main"]


def main() -> None:
    """Measure and write results/benchmarks/startup.json."""
    names = "import kshot; kshot.ProtoNet, kshot.MAML, kshot.EpisodeSampler, kshot.meta_train"
    kshot_time, torch_time, ratio = alternate(lambda: _run(names), lambda: _run("import torch"))
    lazy_time, again, lazy_ratio = alternate(
        lambda: _run("import kshot, torch"), lambda: _run("import torch")
    )
    help_command = "import sys; from kshot.cli import main; main(['--help']); "
    check = "assert 'torch' not in sys.modules"
    help_time, nothing, _ = alternate(lambda: _run(help_command + check), lambda: _run("pass"))
    rows = [
        benchmark_row(
            "import kshot and torch", lazy_time, again, "import torch", "s", pairwise=lazy_ratio
        ),
        benchmark_row(
            "import kshot, all of its stages loaded",
            kshot_time,
            torch_time,
            "import torch",
            "s",
            pairwise=ratio,
        ),
        benchmark_row("kshot --help, torch not imported", help_time, nothing, "python", "s"),
    ]
    write_rows("startup", rows)


def _run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
