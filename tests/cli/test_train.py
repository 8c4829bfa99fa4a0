"""`kshot train` keeps a run in its folder, loses no work, and leaves nothing in the way."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kshot.cli import main, train
from kshot.evaluation.results import read_results
from kshot.training.history import read_history


def test_scores_are_kept_as_they_come(flags, tmp_path, monkeypatch, capsys):
    score = train.evaluate_run

    def interrupted(*arguments: Any) -> Iterator[Any]:
        for number, one in enumerate(score(*arguments)):
            if number == 2:
                raise KeyboardInterrupt
            yield one

    monkeypatch.setattr(train, "evaluate_run", interrupted)
    folder, results = tmp_path / "run", tmp_path / "results"
    asked = ["train", "protonet", *flags, "--out", str(folder), "--results", str(results)]
    assert main(asked) == 130
    kept = read_results(folder / "results.json")
    assert [row["learner"] for row in kept] == ["protonet", "nearest_centroid"]
    assert read_results(results / "image_folder" / "protonet.json") == kept


def test_results_that_have_no_place_are_told_before_training(flags, tmp_path, capsys):
    file = tmp_path / "results" / "image_folder" / "protonet.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    asked = ["train", "protonet", *flags, "--results", str(tmp_path / "results")]
    assert main([*asked, "--out", str(tmp_path / "run")]) == 1
    assert f"{file} should be a list of result rows" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_training_that_fails_at_once_is_not_in_the_way_of_the_next(flags, tmp_path, capsys):
    folder = tmp_path / "run"
    asked = ["train", "protonet", *flags, "--out", str(folder), "--evaluation.episodes", "2"]
    assert main([*asked, "--training.optimizer", "sgd", "--training.outer-lr", "1e30"]) == 1
    assert "There is no checkpoint yet" in capsys.readouterr().err
    assert main([*asked, "--training.iterations", "1"]) == 0


def test_a_training_that_fails_later_keeps_its_run(flags, tmp_path, monkeypatch, capsys):
    def broken(*arguments: Any) -> None:
        raise RuntimeError("no more")

    monkeypatch.setattr("kshot.training.trainer.CheckpointFolder.keep_good", broken)
    folder = tmp_path / "run"
    assert main(["train", "protonet", *flags, "--out", str(folder)]) == 1
    assert "no more" in capsys.readouterr().err
    assert (folder / "run.json").exists() and any((folder / "checkpoints").iterdir())


def test_a_run_does_not_go_among_other_files(flags, tmp_path, capsys):
    (tmp_path / "cat.png").touch()
    for place in (tmp_path, tmp_path / "cat.png"):
        assert main(["train", "protonet", *flags, "--out", str(place)]) == 1
        assert f"something other than a run at {place}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["cat.png"]


def test_a_file_that_is_no_recipe_is_told_so(tmp_path, capsys):
    file = tmp_path / "bad.json"
    file.write_text("{}")
    assert main(["train", str(file)]) == 1
    assert f"{file} is no recipe: expected a TOML file" in capsys.readouterr().err


def test_the_command_that_continues_can_be_pasted(flags, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise train.Interrupted("Training stopped.")

    monkeypatch.setattr(train, "train_run", interrupted)
    folder = tmp_path / "my run"
    asked = ["train", "protonet", *flags, "--out", str(folder)]
    assert main(asked) == 130
    assert f"kshot train --resume '{folder}'\n" in capsys.readouterr().err
    assert main(asked) == 1
    assert f"kshot train --resume '{folder}'" in capsys.readouterr().err


def test_a_run_keeps_everything_in_its_folder(run_folder):
    assert {path.name for path in run_folder.iterdir()} == {
        "run.json",
        "metrics.jsonl",
        "checkpoints",
        "results.json",
        "figures",
    }
    description = json.loads((run_folder / "run.json").read_text())
    assert description["config"]["learner"]["name"] == "protonet"
    assert description["config"]["episodes"]["way"] == 4
    assert description["command"].startswith("kshot train protonet --data image_folder")
    assert [row["iteration"] for row in read_history(run_folder / "metrics.jsonl")] == [3, 6]
    assert {path.name for path in (run_folder / "figures").iterdir()} == {
        "confusion.png",
        "embeddings.png",
        "episode.png",
        "hardest_pairs.png",
        "learning_curve.png",
        "ways_and_shots.png",
    }


def test_every_row_stands_beside_the_pixel_baseline(run_folder):
    rows = read_results(run_folder / "results.json")
    assert [(row["learner"], row["shot"]) for row in rows] == [
        ("protonet", 1),
        ("nearest_centroid", 1),
        ("protonet", 2),
        ("nearest_centroid", 2),
    ]
    assert all(row["protocol"] == "folders" and row["episodes"] == 8 for row in rows)
    assert all(0 <= row["accuracy"] <= 1 and row["ci95"] >= 0 for row in rows)


def test_a_row_keeps_the_curve_of_its_training(run_folder):
    rows = read_results(run_folder / "results.json")
    history = read_history(run_folder / "metrics.jsonl")
    curve = [[line["iteration"], round(line["validation accuracy"], 4)] for line in history]
    assert [row.get("validation_curve") for row in rows] == [curve, None] * 2


def test_an_existing_run_is_not_overwritten(run_folder, flags, capsys):
    before = (run_folder / "metrics.jsonl").read_text()
    assert main(["train", "protonet", *flags, "--out", str(run_folder)]) == 1
    assert "--resume" in capsys.readouterr().err
    assert (run_folder / "metrics.jsonl").read_text() == before


def test_resume_continues_a_run(flags, tmp_path):
    folder = tmp_path / "run"
    shorter = [*flags, "--training.schedule", "constant"]
    assert main(["train", "protonet", *shorter, "--out", str(folder)]) == 0
    description = json.loads((folder / "run.json").read_text())
    description["config"]["training"]["iterations"] = 9
    (folder / "run.json").write_text(json.dumps(description))
    assert main(["train", "--resume", str(folder)]) == 0
    assert [row["iteration"] for row in read_history(folder / "metrics.jsonl")] == [3, 6, 9]


def test_resume_takes_no_other_settings(run_folder, capsys):
    with pytest.raises(SystemExit):
        main(["train", "--resume", str(run_folder), "--training.iterations", "9"])
    assert "--training.iterations" in capsys.readouterr().err
    assert main(["train", "--resume", str(run_folder), "--out", "elsewhere"]) == 1
    assert "--out names a new one" in capsys.readouterr().err


def test_several_processes_need_the_name_of_their_folder(flags, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", "protonet", *flags]) == 1
    assert "name its folder with --out" in capsys.readouterr().err


def test_an_untrained_learner_is_only_evaluated(flags, tmp_path, capsys):
    arguments = [flag for flag in flags if flag != "--backbone.hidden" and flag != "4"]
    folder = tmp_path / "run"
    data = arguments[:6]
    evaluation = ["--evaluation.query-shots", "3", "--evaluation.episodes", "8"]
    assert (
        main(["train", "nearest_centroid", *data, *evaluation, "--out", str(folder), "--json"]) == 0
    )
    rows = json.loads(capsys.readouterr().out)
    assert {row["learner"] for row in rows} == {"nearest_centroid"}
    assert not (folder / "checkpoints").exists()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--evaluation.num-test-steps", "1"], "takes no inner steps"),
        (["--evaluation.ensemble", "2"], "of 2 validations the weights of 1 would be kept"),
        (["--learner.batch-norm", "batch", "--evaluation.batch-norm", "running"], "has none"),
    ],
)
def test_what_would_fail_after_training_fails_before(wrong, told, flags, tmp_path, capsys):
    assert main(["train", "protonet", *flags, *wrong, "--out", str(tmp_path / "run")]) == 1
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_training_without_normalization_is_refused(flags, tmp_path, capsys):
    maml = [*flags, "--backbone", "conv4_strided", "--learner.batch-norm", "running"]
    assert main(["train", "maml", *maml, "--out", str(tmp_path / "run")]) == 1
    assert "would train without normalization" in capsys.readouterr().err


def test_results_go_where_they_are_asked_to(flags, tmp_path):
    arguments = [*flags, "--training.seed", "3", "--results", str(tmp_path / "results")]
    assert main(["train", "protonet", *arguments, "--out", str(tmp_path / "a")]) == 0
    path = Path(tmp_path / "results" / "image_folder" / "protonet.json")
    assert {row["seed"] for row in read_results(path)} == {3}
    arguments[-3] = "4"
    assert main(["train", "protonet", *arguments, "--out", str(tmp_path / "b")]) == 0
    assert {row["seed"] for row in read_results(path)} == {3, 4}


def test_what_cannot_be_evaluated_fails_before_training(flags, tmp_path, capsys):
    arguments = ["train", "protonet", *flags, "--evaluation.shots", "50"]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 1
    assert "needs 53" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_backbone_for_pictures_refuses_points(capsys):
    assert main(["train", "maml", "--data", "sinusoid"]) == 1
    assert "such as mlp" in capsys.readouterr().err
