"""`kshot train` loses no work, and leaves nothing behind that is in the way."""

from collections.abc import Iterator
from typing import Any

from kshot.cli import main, train
from kshot.evaluation.results import read_results


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
