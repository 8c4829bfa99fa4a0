"""What was fitted before, served to everybody: the same API with a fixed support set."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from kshot.demo.api import Api
from kshot.demo.learners import FittedPredictor
from kshot.demo.server import build_app
from kshot.encoders import Encoder
from kshot.predictor import Predictor


class Letters(Encoder):
    """Sentences as counts of their letters."""

    kind = "text"
    dim = 26

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(b"letters").hexdigest()

    def content(self, item: Any) -> bytes:
        return hashlib.sha256(item.encode()).digest()

    def embed_batches(self, inputs: Sequence[Any], batch_size: int) -> Iterator[Any]:
        rows = [[text.lower().count(chr(97 + k)) for k in range(26)] for text in inputs]
        yield list(range(len(inputs))), torch.tensor(rows, dtype=torch.float32), {}


@pytest.fixture(scope="module")
def client() -> TestClient:
    texts = ["aaa b", "aa a", "a aaaa", "zzz", "zz z b", "zzzz", "mmm", "mm m", "mmmm b"]
    labels = [label for label in ("start", "end", "middle") for _ in range(3)]
    encoder = Letters()
    predictor = Predictor.fit(texts, labels, encoder=encoder, head="centroid")
    return TestClient(build_app(Api(fixed=FittedPredictor(predictor, encoder))))


def test_sentences_are_named_and_strangers_told(client: TestClient):
    assert client.get("/api/classes").json() == {
        "classes": ["end", "middle", "start"],
        "reads": "text",
    }
    answer = client.post("/api/predict", json={"texts": ["aaaa", "z zz", "qqqqqqqqqqqq"]})
    first, second, third = answer.json()["predictions"]
    assert (first["class"], second["class"]) == ("start", "end")
    assert first["known"] and not third["known"]


def test_only_what_is_read_is_taken(client: TestClient):
    wrong = client.post("/api/predict", json={"pictures": ["AAAA"]})
    assert wrong.status_code == 422 and "'texts'" in wrong.json()["error"]
    wrong = client.post("/api/predict", json={"texts": [""]})
    assert wrong.status_code == 422 and "it is empty" in wrong.json()["error"]
    wrong = client.post("/api/predict", content=b"x", headers={"Content-Type": "image/png"})
    assert wrong.status_code == 415
    described = client.get("/api/openapi.json").json()
    assert "/api/adapt" not in described["paths"]
