"""`python -m benchmarks [NAME ...]`: run some benchmarks, or all."""

import importlib
import sys

__all__: list[str] = []

NAMES = (
    *("startup", "sampling", "overhead", "meta_gradients", "inner_loop", "metric", "memory"),
    *("encoders", "own_data", "learned_optimizer", "demo"),
)

if __name__ == "__main__":
    for name in sys.argv[1:] or NAMES:
        if name not in NAMES:
            sys.exit(f"There is no benchmark {name!r}; there are {', '.join(NAMES)}.")
        importlib.import_module(f"benchmarks.{name}").main()
