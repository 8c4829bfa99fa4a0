"""What every test shares: checked shapes, a private cache, real data where it is present."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # one process a core: threads would only wait
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import jaxtyping
import pytest
import torch
from hypothesis import settings

if os.environ.get("KSHOT_CHECK_TYPES", "1") != "0":
    # Modules of kshot imported from here on check the shapes in their signatures at every call.
    jaxtyping.install_import_hook("kshot", "beartype.beartype")

settings.register_profile("kshot", derandomize=True, deadline=None)
settings.load_profile("kshot")


def pytest_configure(config: pytest.Config) -> None:
    # Not a fixture: doctests in src/kshot must not touch the user's cache either.
    cache = tempfile.TemporaryDirectory(prefix="kshot-cache-")
    os.environ["KSHOT_CACHE"] = cache.name
    config.add_cleanup(cache.cleanup)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of the optional real data; the test skips where there is none."""
    folder = os.environ.get("KSHOT_DATA")
    if not folder:
        pytest.skip("needs real data: set KSHOT_DATA to its folder")
    if not Path(folder).is_dir():
        pytest.skip(f"needs real data: KSHOT_DATA is {folder}, which is not a folder")
    return Path(folder)


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Leaves types and shapes unchecked during one test.

    torch.compile cannot trace the checks, and a user's call is not checked.
    """
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile gives back what it is given, which saves minutes."""
    monkeypatch.setattr(torch, "compile", lambda graph, **options: graph)
