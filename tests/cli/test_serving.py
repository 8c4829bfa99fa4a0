"""`kshot demo`, `serve` and `doctor` from the command line; tests/demo tests what is served."""

from pathlib import Path

import pytest

from kshot.cli import doctor, main

pytest.importorskip("starlette", reason="needs the extra `demo`")
pytest.importorskip("uvicorn", reason="needs the extra `demo`")

from starlette.testclient import TestClient

from kshot.demo import server


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list:
    """Applications that would be served."""
    apps: list = []
    monkeypatch.setattr(server, "serve", lambda app, host, port, *_: apps.append((app, host, port)))
    return apps


def test_the_demo_serves_what_comes_with_kshot(served: list):
    assert main(["demo", "--port", "1234"]) == 0
    [(app, host, port)] = served
    assert (host, port) == ("127.0.0.1", 1234)
    learners = TestClient(app).get("/api/learners").json()["learners"]
    assert [one["name"] for one in learners] == ["protonet", "maml"]
    assert main(["demo", "--sinusoid"]) == 0
    assert "wave" in TestClient(served[1][0]).get("/").text


def test_a_run_is_served_with_a_folder_of_examples(served: list, run_folder: Path, pictures: Path):
    folder = pictures / "test"
    assert main(["serve", str(run_folder), "--support", str(folder)]) == 0
    client = TestClient(served[0][0])
    names = client.get("/api/classes").json()
    assert names == {"classes": [f"test{n}" for n in range(6)], "reads": "pictures"}
    file = (folder / "test3" / "2.png").read_bytes()
    answer = client.post("/api/predict", content=file, headers={"Content-Type": "image/png"})
    [said] = answer.json()["predictions"]
    assert {one["class"] for one in said["probabilities"]} == set(names["classes"])
    assert client.get("/").json()["openapi"] == "3.1.0"
    wrong = client.post("/api/predict", content=b"no", headers={"Content-Type": "image/png"})
    assert wrong.status_code == 422 and "none of these" in wrong.json()["error"]
    assert client.post("/api/adapt", json={}).status_code == 404


def test_what_cannot_be_served_is_said(run_folder: Path, tmp_path: Path, capsys):
    def said(*arguments: str) -> str:
        assert main([*arguments]) == 1
        return capsys.readouterr().err

    assert "--support FOLDER" in said("serve", str(run_folder))
    assert "--encoder and --weights" in said("serve", str(run_folder), "--encoder", "x")
    assert "run.json" in said("demo", str(tmp_path))
    assert "above 0" in said("demo", "--rate", "0")


def test_without_a_server_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr("kshot.extras.find_spec", lambda name: None)
    assert main(["demo"]) == 1
    assert "pip install starlette uvicorn" in capsys.readouterr().err


def test_the_doctor_finds_this_installation_sound(capsys):
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert told.count("  ok ") == len(doctor.CHECKS) and "torch" in told


def test_the_doctor_tells_of_what_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("KSHOT_CACHE", str(file / "below"))
    monkeypatch.setattr(doctor, "CHECKS", doctor.CHECKS[:1])
    assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert "FAILED" in told and "Set KSHOT_CACHE" in told and "1 of 1 checks failed" in told


def test_a_wrong_gradient_is_found(monkeypatch: pytest.MonkeyPatch):
    from kshot.learners.optimization.maml import MAML

    def wrong(self: MAML, episodes):
        return super(MAML, self).meta_loss(episodes) + self.net.head.bias.detach().sum()

    monkeypatch.setattr(MAML, "meta_loss", wrong, raising=False)
    with pytest.raises(AssertionError, match="central differences"):
        doctor._gradients_are_exact()
