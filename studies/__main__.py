"""`python -m studies NAME ...`: run some studies; see each file for what it takes."""

import importlib
import sys

__all__: list[str] = []

NAMES = (
    "heads",
    "estimates",
    "rejection",
    "adapter",
    "last_block",
    "caltech101",
    "update_rules",
    "copy_task",
    "learned_optimizer",
    "black_box",
    "papers",
    "figures",
    "regions",
)

if __name__ == "__main__":
    name, *rest = sys.argv[1:] or [""]
    if name not in NAMES:
        sys.exit(f"There is no study {name!r}; there are {', '.join(NAMES)}.")
    importlib.import_module(f"studies.{name}").main(rest)
