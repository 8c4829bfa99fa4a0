"""Optional packages: what each extra of kshot brings, and what to say where one is missing."""

from importlib.util import find_spec

__all__ = ["EXTRAS", "install_command", "missing_modules"]

EXTRAS = {
    "demo": {"starlette": "starlette", "uvicorn": "uvicorn"},
    "vision": {"timm": "timm", "torchvision": "torchvision", "open_clip": "open_clip_torch"},
    "text": {
        "transformers": "transformers",
        "sentence_transformers": "sentence-transformers",
    },
    "metric": {"pytorch_metric_learning": "pytorch-metric-learning"},
    "tensorboard": {"tensorboard": "tensorboard"},
}
"""For each extra, its modules, and what installs them."""


def install_command(*modules: str) -> str:
    """What installs modules of extras.

    Example:
        >>> install_command("timm", "open_clip")
        'pip install timm open_clip_torch'
    """
    packages: dict[str, str] = {}
    for brought in EXTRAS.values():
        packages |= brought
    return " ".join(["pip install", *(packages[module] for module in modules)])


def missing_modules(extra: str) -> list[str]:
    """The modules of an extra that are not installed."""
    return [module for module in EXTRAS[extra] if find_spec(module) is None]
