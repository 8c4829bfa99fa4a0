"""`kshot data` shows splits and an episode, keeps episodes, and says what it cannot do."""

import json
import re

from kshot.cli import main


def test_no_episodes_cannot_be_kept(tmp_path, capsys):
    file = tmp_path / "episodes"
    assert main(["data", "glyphs", "--freeze", str(file), "--num-episodes", "0"]) == 1
    assert "--num-episodes must be 1 or more, not 0" in capsys.readouterr().err
    assert not file.exists()


def test_episodes_can_be_frozen_and_scored(run_folder, pictures, tmp_path, capsys):
    file = tmp_path / "episodes"
    data = ["--data.path", str(pictures), "--data.size", "16", "--episodes.way", "3"]
    freeze = ["--freeze", str(file), "--num-episodes", "12", "--episodes.query-shot", "2"]
    assert main(["data", "image_folder", *data, *freeze]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run_folder), "--frozen", str(file), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {(row["way"], row["shot"], row["query_shot"]) for row in rows} == {(3, 1, 2)}
    assert {(row["episodes"], row["evaluation_seed"]) for row in rows} == {(12, None)}
    assert all(re.fullmatch("episodes [0-9a-f]{12}", row["frozen"]) for row in rows)


def test_data_shows_splits_and_draws_an_episode(pictures, tmp_path, capsys):
    figure = tmp_path / "episode.png"
    arguments = ["--data.path", str(pictures), "--figure", str(figure), "--json"]
    assert main(["data", "image_folder", *arguments, "--episodes.way", "3"]) == 0
    splits = json.loads(capsys.readouterr().out)["splits"]
    assert [(row["split"], row["classes"]) for row in splits] == [
        ("train", 6),
        ("val", 6),
        ("test", 6),
    ]
    assert figure.stat().st_size > 1000


def test_data_without_pictures_is_described(capsys, tmp_path):
    assert main(["data", "sinusoid", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["protocol"] == "finn"
    assert main(["data", "sinusoid", "--figure", str(tmp_path / "a.png")]) == 1
    assert "neither pictures to draw" in capsys.readouterr().err
