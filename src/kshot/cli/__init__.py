"""The command line: one file a sub-command, and this table of them."""

import ctypes
import importlib
import os
import sys

__all__ = ["main"]

COMMANDS = {
    "fit": "learn to name your own pictures or sentences from a few examples of each class",
    "predict": "name pictures or sentences by what fit learned, or pictures with a trained run",
    "add": "give what fit learned new classes, or more examples",
    "inspect": "show what fit learned: estimate, hardest classes, examples to look at again",
    "train": "meta-train a learner, on glyphs when nothing else is said, and evaluate it",
    "evaluate": "score a trained run on other episodes",
    "plot": "draw the figures of a trained run again",
    "report": "write a page about trained runs: results, figures, how to reproduce them",
    "verify": "tell how well a trained run accepts true claims and rejects false ones",
    "list": "show the learners, backbones, datasets and recipes there are",
    "data": "show a dataset's classes, splits and an episode",
    "demo": "serve a page: draw a few examples of your classes, then draw and watch it be named",
    "serve": "answer the demo's JSON API with what was fitted, or with a run and a support folder",
    "doctor": "show versions, device and data found, and check that learning is exact here",
}


def main(arguments: list[str] | None = None) -> int:
    """Run `kshot` with some arguments; the exit status."""
    _be_a_good_process()
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        try:
            return _run(name, rest)
        finally:
            print(end="", flush=True)  # a reader that has gone is found out here, not at the exit
    except BrokenPipeError:
        # What reads, such as `head`, has enough, and nobody is left to be told. Python writes the
        # rest once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as of a program that SIGPIPE ends
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        if os.environ.get("KSHOT_TRACEBACK"):
            raise
        print(f"kshot {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"kshot {name}: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return 130


def _run(name: str, rest: list[str]) -> int:
    """Run a command with its own arguments; the exit status."""
    if name in ("-h", "--help", "help"):
        print(_help())
        return 0
    if name == "--version":
        from importlib.metadata import version

        print(f"kshot {version('kshot')}")
        return 0
    if name not in COMMANDS:
        from kshot.options import nearest

        print(f"kshot: unknown command {name!r}.{nearest(name, COMMANDS)}", file=sys.stderr)
        return 2
    return importlib.import_module(f"kshot.cli.{name}").main(rest)


def _be_a_good_process() -> None:
    """Settings of the process that belong to a program, not to a library; before torch is there."""
    # A thread that waits should not burn the core that another process needs, as OpenMP's default
    # makes it do; one that sleeps at once is late for the next small operation, which comes within
    # microseconds. So it waits a few of them (a count of GNU's OpenMP; others sleep at once).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if os.environ["OMP_WAIT_POLICY"].lower() == "passive":
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # glibc gives large blocks back to the system at once, so that every tensor is paged in anew:
    # a third of a convolutional training step. Keep freed memory for the next step.
    if sys.platform == "linux":
        glibc = ctypes.CDLL(None)
        if hasattr(glibc, "mallopt"):
            mmap_threshold, trim_threshold = -3, -1
            glibc.mallopt(mmap_threshold, 1 << 30)
            glibc.mallopt(trim_threshold, (1 << 31) - 1)


def _help() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {line}" for name, line in COMMANDS.items())
    return f"""\
kshot: learn to learn from a handful of examples

usage: kshot COMMAND [ARGUMENTS]

{commands}

  kshot fit FOLDER --out flowers.kshot, then kshot predict flowers.kshot PICTURE...
  kshot train                 train a prototypical network on glyphs, in a minute or two
  kshot COMMAND --help        what a command takes
  kshot --version             the version; KSHOT_TRACEBACK=1 shows where an error comes from"""
