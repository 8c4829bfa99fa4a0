"""Speed and memory, each beside something else in the same run; `python -m benchmarks NAME`."""

__all__: list[str] = []
