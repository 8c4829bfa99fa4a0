"""`python -m kshot`, which torchrun needs."""

import sys

from kshot.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
