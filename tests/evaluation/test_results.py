import platform
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from kshot.config import Choice, EpisodeConfig, Published, RunConfig
from kshot.evaluation.evaluate import Evaluation
from kshot.evaluation.results import (
    git_revision,
    machine,
    merge_results,
    read_results,
    result_row,
    same_episodes,
    spread_over_seeds,
    versions,
)

PROVENANCE = {"command": "kshot train", "recipe": None, "versions": {}, "git": None, "machine": "x"}


def row(metric="accuracy", way=5, instance=None, **changes):
    scores = np.array([0.5, 0.7, 0.9, 0.7])
    config = RunConfig(
        learner=Choice("protonet"),
        published=changes.pop("published", (Published(5, 1, 0.988, "table 1"),)),
        **changes,
    )
    return result_row(
        config,
        config.evaluation,
        Evaluation(scores, metric, "running", False),
        EpisodeConfig(way=way),
        learner="protonet",
        backbone="conv4",
        protocol="scripts",
        training={"train_seconds": 1.0, "train_iterations": 2},
        provenance=PROVENANCE,
        instance=instance,
    )


def test_a_row_has_the_mean_and_its_interval():
    made = row()
    assert made["accuracy"] == 0.7 and made["episodes"] == 4
    assert 0.2 < made["ci95"] < 0.3
    assert made["published"] == {"accuracy": 0.988, "where": "table 1"}
    assert row(way=20)["published"] is None
    for unlike in (Published(5, 1, 0.9, "", query_shot=1), Published(5, 1, 0.9, "", None, "batch")):
        assert row(published=(unlike,))["published"] is None


def test_a_row_of_an_instance_stands_beside_its_own_figure():
    published = tuple(Published(5, 1, k / 10, "", instance=k) for k in (1, 2))
    made = row(instance=2, published=published)
    assert made["published"]["accuracy"] == 0.2
    assert (made["instance"], made["shot"], made["query_shot"]) == (2, 1, 0)
    assert row(instance=3, published=published)["published"] is None
    assert "instance" not in row() and row(published=published)["published"] is None
    assert row(instance=2)["published"] is None
    assert not same_episodes(made, row(instance=1))


def test_a_regression_row_has_errors_and_no_accuracy():
    made = row("mean_squared_error")
    assert made["accuracy"] is None
    assert made["mean_squared_error"] == 0.7 and abs(made["median_squared_error"] - 0.7) < 1e-12


def test_rows_of_the_same_measurement_are_replaced_and_others_stay(tmp_path):
    path = tmp_path / "glyphs" / "protonet.json"
    first = {"seed": 0, "way": 5, "accuracy": 0.1}
    merge_results(path, [first, {**first, "seed": 1}, {**first, "way": 20}])
    merge_results(path, [{**first, "accuracy": 0.3}])
    merge_results(path, [{**first, "instance": 1}])
    *rows, of_instance = read_results(path)
    assert of_instance["instance"] == 1
    found = sorted((row["seed"], row["way"], row["accuracy"]) for row in rows)
    assert found == [(0, 5, 0.3), (0, 20, 0.1), (1, 5, 0.1)]
    assert read_results(tmp_path / "absent.json") == []


def test_where_a_number_comes_from(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert {"python", "kshot", "torch", "numpy"} <= set(versions())
    assert machine().endswith(f"cores, {platform.system()}")
    revision = git_revision()
    assert revision is None or len(revision.removesuffix("+changes")) == 40


def test_a_gpu_is_part_of_the_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "some GPU")
    assert machine().endswith(f"cores, {platform.system()}, some GPU")


def test_rows_compare_in_pairs_when_their_episodes_are_the_same():
    assert same_episodes(row(), {**row(), "learner": "maml", "batch_norm": "batch", "seed": 5})
    for key in ("way", "protocol", "split", "evaluation_seed", "episodes", "frozen"):
        assert not same_episodes(row(), {**row(), key: "another"})


def test_the_spread_over_seeds_is_that_of_training_again():
    rows = [{**row(), "seed": seed, "accuracy": 0.7 + 0.1 * seed} for seed in (0, 1, 2)]
    ((first, interval),) = spread_over_seeds([*rows, {**row(), "way": 20}])
    assert first["way"] == 5 and (interval.n, round(interval.mean, 9)) == (3, 0.8)
    assert interval.half_width == pytest.approx(0.24841, abs=1e-5)


def test_runs_that_end_together_lose_no_row_of_each_other(tmp_path):
    rows = [{**row(), "seed": seed} for seed in range(40)]
    path = tmp_path / "new" / "protonet.json"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: merge_results(path, [one]), rows))
    assert sorted(one["seed"] for one in read_results(path)) == list(range(40))
