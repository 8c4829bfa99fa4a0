"""Waves: every learner's curve, step by step."""

import pytest
from starlette.testclient import TestClient

from kshot.demo.api import Api
from kshot.demo.learners import SHIPPED
from kshot.demo.server import build_app
from kshot.demo.waves import NUM_STEPS, WaveLearner, load_waves

WAVE = [[-4.0, 2.27], [-2.5, -1.8], [-1.0, -2.52], [0.5, 1.44], [2.0, 2.73], [3.0, 0.42]]


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(build_app(Api(waves=load_waves([])), "waves"))


def test_meta_learned_curves_come_nearer_than_the_pretrained_one(client: TestClient):
    learners = client.post("/api/waves", json={"points": WAVE}).json()["learners"]
    assert [one["name"] for one in learners] == ["maml", "reptile", "fine_tuning"]
    errors = {one["name"]: [step["error"] for step in one["steps"]] for one in learners}
    for one in learners:
        assert len(one["steps"]) == NUM_STEPS + 1
        assert {len(step["y"]) for step in one["steps"]} == {len(one["x"])}
    assert errors["maml"][-1] < 0.5 * errors["fine_tuning"][-1]
    assert errors["reptile"][-1] < errors["reptile"][0]


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b'{"points": [[0, NaN]]}', 400, "NaN"),
        (b'{"points": [[0, 1e999]]}', 422, "two numbers from -10 to 10"),
        (b'{"points": [[0, true]]}', 422, "two numbers from -10 to 10"),
        (b'{"points": [[0]]}', 422, "2 to 2 items in point 1"),
        (b'{"points": []}', 422, "1 to 50 items"),
        (b"{}", 422, "missing"),
    ],
)
def test_wrong_points_are_refused(client: TestClient, body: bytes, status: int, reason: str):
    answer = client.post("/api/waves", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status and reason in answer.json()["error"]


def test_a_run_that_knows_no_waves_is_refused():
    with pytest.raises(ValueError, match="does not learn waves"):
        WaveLearner.load(SHIPPED / "protonet")
