"""Drawings, and an application that answers from the weights that come with kshot."""

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from PIL import Image, ImageDraw

pytest.importorskip("starlette", reason="needs the extra `demo`")
pytest.importorskip("uvicorn", reason="needs the extra `demo`")

from kshot.demo.learners import SHIPPED, PictureLearner

SIDE = 160


def draw(kind: str, shift: int = 0, *, side: int = SIDE, pen: int = 5, dark: bool = True) -> bytes:
    """A PNG of a circle, a cross, a bar, or nothing."""
    paper, ink = ("white", "black") if dark else ("black", "white")
    picture = Image.new("RGB", (SIDE, SIDE), paper)
    pencil = ImageDraw.Draw(picture)
    if kind == "circle":
        pencil.ellipse((30 + shift, 30, 120 + shift, 125), outline=ink, width=pen)
    elif kind == "cross":
        pencil.line((30, 30 + shift, 120, 120), fill=ink, width=pen)
        pencil.line((120, 30, 30 + shift, 120), fill=ink, width=pen)
    elif kind == "bar":
        pencil.line((80, 20, 80 + shift, 140), fill=ink, width=pen)
    stream = io.BytesIO()
    picture.resize((side, side)).save(stream, "PNG")
    return stream.getvalue()


def text_of(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def class_set(*kinds: str, shots: int = 2) -> list[dict[str, object]]:
    return [
        {"name": kind, "pictures": [text_of(draw(kind, 5 * shot)) for shot in range(shots)]}
        for kind in kinds
    ]


@pytest.fixture(scope="session")
def protonet() -> PictureLearner:
    return PictureLearner.load(SHIPPED / "protonet", "protonet")


@pytest.fixture(scope="session")
def maml() -> PictureLearner:
    return PictureLearner.load(SHIPPED / "maml", "maml")


@pytest.fixture
def connect(protonet: PictureLearner, maml: PictureLearner) -> Iterator[Callable]:
    """Makes a client of an API of both learners; limits as keywords."""
    from starlette.testclient import TestClient

    from kshot.demo.api import Api
    from kshot.demo.limits import Limits
    from kshot.demo.server import build_app

    def make(**limits: float) -> TestClient:
        bounds = Limits(**{"rate": 1e6, "burst": 10**6, **limits})  # pyright: ignore[reportArgumentType]
        api = Api(learners=[protonet, maml], limits=bounds)
        # Entered, it answers all its requests in one event loop, as a server does.
        return stack.enter_context(TestClient(build_app(api, "draw")))

    with ExitStack() as stack:
        yield make
