import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kshot.cli import main
from kshot.cli.recipes import recipe_names
from kshot.cli.train import parse
from kshot.evaluation.results import read_results
from kshot.training.history import read_history


def test_help_does_not_need_torch():
    code = "import sys; from kshot.cli import main; main(['--help']); print('torch' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout.splitlines()[-1] == "False"
    assert "kshot train" in process.stdout


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "1000"), ({"OMP_WAIT_POLICY": "active"}, None), ({"GOMP_SPINCOUNT": "7"}, "7")],
)
def test_threads_wait_a_little_unless_told_otherwise(given: dict[str, str], spins: str | None):
    code = (
        "import os; from kshot.cli import main; main([]); "
        "print(os.environ.get('OMP_WAIT_POLICY'), os.environ.get('GOMP_SPINCOUNT'))"
    )
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    rest = {name: value for name, value in os.environ.items() if name not in names}
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=rest | given
    )
    policy = given.get("OMP_WAIT_POLICY", "passive")
    assert process.stdout.splitlines()[-1] == f"{policy} {spins}"


def test_no_argument_shows_help(capsys):
    assert main([]) == 0
    assert "usage: kshot COMMAND" in capsys.readouterr().out


def test_an_unknown_command_suggests_one(capsys):
    assert main(["trian"]) == 2
    assert "Did you mean 'train'?" in capsys.readouterr().err


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


def test_plot_draws_a_run_again(run_folder, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy, ignore=shutil.ignore_patterns("figures"))
    assert main(["plot", str(copy)]) == 0
    drawn = {path.name for path in (copy / "figures").iterdir()}
    assert drawn == {path.name for path in (run_folder / "figures").iterdir()}
    assert len(capsys.readouterr().out.splitlines()) == len(drawn)
    assert main(["plot"]) == 1 and "Name at least one" in capsys.readouterr().err


def test_evaluate_draws_what_it_scored(run_folder, tmp_path):
    folder = tmp_path / "drawn"
    asked = ["--evaluation.shots", "3", "--evaluation.episodes", "4", "--figures", str(folder)]
    assert main(["evaluate", str(run_folder), *asked]) == 0
    drawn = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    assert {"side_by_side.png", "protonet/episode.png", "protonet/confusion.png"} <= drawn
    assert "protonet/ways_and_shots.png" not in drawn


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


def test_rows_of_instances(flags, tmp_path, capsys):
    instances = ("--evaluation.instances", "1", "2", "4", "--evaluation.shots", "1")
    folder, figure = tmp_path / "lstm", tmp_path / "instances.png"
    lstm = [*flags, "--backbone", "flatten", "--episodes.shot", "4", *instances]
    lstm.remove("--backbone.hidden")
    lstm.remove("4")
    assert main(["train", "lstm", *lstm, "--out", str(folder)]) == 0
    assert "4-way, instance 2 of 4" in capsys.readouterr().out
    rows = [row for row in read_results(folder / "results.json") if "instance" in row]
    assert [(row["learner"], row["instance"]) for row in rows] == [
        (name, k) for name in ("lstm", "nearest_centroid") for k in (1, 2, 4)
    ]
    assert all((row["way"], row["shot"], row["query_shot"]) == (4, 4, 0) for row in rows)
    pixels = {row["instance"]: row["accuracy"] for row in rows[3:]}
    assert pixels[1] < 0.6 and pixels[4] > 0.9
    again = ["evaluate", str(folder), "--evaluation.instances", "4", "--figure", str(figure)]
    assert main([*again, "--json"]) == 0
    *_, lstm_row, pixel_row = json.loads(capsys.readouterr().out)
    assert lstm_row["accuracy"] == rows[2]["accuracy"] and figure.stat().st_size > 5_000
    assert pixel_row["instance"] == 4


def test_the_weights_of_the_best_validations_predict_together(run_folder, flags, tmp_path, capsys):
    run = str(tmp_path / "run")
    wanted = ("--training.keep-best", "2", "--evaluation.ensemble", "1", "2")
    assert main(["train", "protonet", *flags, *wanted, "--out", run, "--json"]) == 0
    rows = [row for row in json.loads(capsys.readouterr().out) if row["learner"] == "protonet"]
    assert [(row["shot"], row.get("ensemble")) for row in rows] == [
        *((1, None), (1, 2)),
        *((2, None), (2, 2)),
    ]
    assert main(["evaluate", run, "--evaluation.ensemble", "2", "1"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("4-way 1-shot, mean of 2") == shown.count("on flatten  4-way 1-shot") == 1
    for folder in (run, str(run_folder)):
        assert main(["evaluate", folder, "--evaluation.ensemble", "3"]) == 1
        kept = 2 if folder == run else 0
        assert f"keeps {kept}. Train with --training.keep-best 3" in capsys.readouterr().err


def test_an_existing_run_is_not_overwritten(run_folder, flags, capsys):
    before = (run_folder / "metrics.jsonl").read_text()
    assert main(["train", "protonet", *flags, "--out", str(run_folder)]) == 1
    assert "--resume" in capsys.readouterr().err
    assert (run_folder / "metrics.jsonl").read_text() == before


def test_evaluate_gives_the_numbers_of_training_and_compares_runs(
    run_folder, flags, tmp_path, capsys
):
    assert main(["evaluate", str(run_folder), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    first = read_results(run_folder / "results.json")
    assert [row["accuracy"] for row in again] == [row["accuracy"] for row in first]

    other = tmp_path / "maml"
    maml = [*flags, "--backbone", "conv4_strided", "--learner.inner-lr", "0.5"]
    assert main(["train", "maml", *maml, "--out", str(other)]) == 0
    capsys.readouterr()
    both = ["evaluate", str(run_folder), str(other), "--evaluation.shots", "1"]
    file = tmp_path / "both.json"
    assert main([*both, "--results", str(file)]) == 0
    assert "paired differences" in capsys.readouterr().out
    protonet, maml = (
        next(row for row in read_results(file) if row["learner"] == name)
        for name in ("protonet", "maml")
    )
    against = maml["against"]
    assert "against" not in protonet
    assert against["learner"] == "protonet" and against["config"] == protonet["config"]
    difference = maml["accuracy"] - protonet["accuracy"]
    assert against["difference"] == pytest.approx(difference) and against["ci95"] > 0


def test_a_wrong_place_for_results_is_told_before_the_work(run_folder, tmp_path, capsys):
    for command in ("evaluate", "verify"):
        assert main([command, str(run_folder), "--results", str(tmp_path)]) == 1
        assert f"{tmp_path} is a folder: name a JSON file" in capsys.readouterr().err
    file = tmp_path / "results.json"
    file.touch()
    assert main(["train", "protonet", "--results", str(file), "--out", str(tmp_path / "run")]) == 1
    assert "is a file: name the folder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_row_stands_against_one_of_its_own_policy(run_folder, flags, tmp_path):
    other, file = tmp_path / "other", tmp_path / "both.json"
    assert main(["train", "protonet", *flags, "--training.seed", "1", "--out", str(other)]) == 0
    policies = ["--evaluation.batch-norm", "running", "batch"]
    assert main(["evaluate", str(run_folder), str(other), *policies, "--results", str(file)]) == 0
    rows = [row for row in read_results(file) if row["seed"] == 1 and row["backbone"] != "flatten"]
    assert {row["batch_norm"] for row in rows} == {"running", "batch"}
    assert all(row["against"]["batch_norm"] == row["batch_norm"] for row in rows)


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


@pytest.mark.parametrize(
    ("content", "told"), [("{", "is damaged"), ("{}", "lacks config"), ("[]", "lacks config")]
)
def test_a_damaged_description_of_a_run_says_so(content, told, tmp_path, capsys):
    (tmp_path / "run.json").write_text(content)
    assert main(["predict", str(tmp_path), "--support", ".", "--query", "x.png"]) == 1
    assert told in capsys.readouterr().err


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


def test_the_gates_of_a_learned_rule_are_drawn(run_folder, flags, tmp_path, capsys):
    options = ["--learner.num-inner-steps", "2", "--validation.way", "4", "--out", str(tmp_path)]
    assert main(["train", "lstm_meta_learner", *flags, *options]) == 0
    figure = tmp_path / "gates.png"
    assert main(["evaluate", str(tmp_path), "--gates", str(figure)]) == 0
    assert figure.stat().st_size > 10_000
    assert main(["evaluate", str(run_folder), "--gates", str(figure)]) != 0
    assert "protonet has no gates to draw" in capsys.readouterr().err


def test_a_regression_run_draws_its_adaptation(tmp_path, capsys):
    folder = tmp_path / "run"
    arguments = ["sinusoid/maml", "--training.iterations", "3", "--training.no-compile"]
    assert main(["train", *arguments, "--evaluation.episodes", "4", "--out", str(folder)]) == 0
    row, *_ = read_results(folder / "results.json")
    assert row["accuracy"] is None and row["mean_squared_error"] > 0
    assert (folder / "figures" / "adaptation.png").exists()


def test_a_regression_run_is_scored_at_other_numbers_of_steps(tmp_path, capsys):
    folder, figure = tmp_path / "run", tmp_path / "adaptation.png"
    arguments = ["sinusoid/maml", "--training.iterations", "3", "--training.no-compile"]
    assert main(["train", *arguments, "--evaluation.episodes", "4", "--out", str(folder)]) == 0
    capsys.readouterr()
    steps = ["--evaluation.num-test-steps", "0", "5"]
    assert main(["evaluate", str(folder), *steps, "--figure", str(figure), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["num_test_steps"] for row in rows] == [0, 5]
    assert rows[0]["mean_squared_error"] != rows[1]["mean_squared_error"]
    assert figure.stat().st_size > 1000


def test_runs_are_compared_over_their_seeds(run_folder, flags, tmp_path, capsys):
    other, figure = tmp_path / "other", tmp_path / "comparison.png"
    assert main(["train", "protonet", *flags, "--training.seed", "1", "--out", str(other)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run_folder), str(other), "--figure", str(figure)]) == 0
    shown = capsys.readouterr().out
    told = shown[shown.index("over training seeds") :]
    assert "protonet" in told and "(n = 2)" in told
    assert "nearest_centroid" not in told, "what is not trained has no spread"
    assert figure.stat().st_size > 1000


def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(
    run_folder, flags, tmp_path, capsys
):
    other = tmp_path / "other"
    changed = [*flags, "--training.seed", "1", "--training.outer-lr", "0.5"]
    assert main(["train", "protonet", *changed, "--out", str(other)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run_folder), str(other)]) == 0
    assert "over training seeds" not in capsys.readouterr().out


def test_every_run_is_scored_under_its_own_policies(run_folder, flags, tmp_path, capsys):
    other = tmp_path / "maml"
    maml = [*flags, "--backbone", "conv4_strided"]
    policies = ["--evaluation.batch-norm", "batch", "support_and_query"]
    assert main(["train", "maml", *maml, *policies, "--out", str(other)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(other), str(run_folder), "--json"]) == 0
    rows = [row for row in json.loads(capsys.readouterr().out) if row["backbone"] != "flatten"]
    assert {row["batch_norm"] for row in rows if row["learner"] == "protonet"} == {"running"}
    assert main(["evaluate", str(other), str(run_folder), "--evaluation.shots", "1"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("(running) - ") == 2 and "(support_and_query, 1 step) " in shown


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


def test_a_changed_recipe_is_not_called_by_its_name(tmp_path):
    def recipe(*flags: str) -> str | None:
        return parse(["glyphs/protonet", *flags])[1]

    name = "recipes/glyphs/protonet.toml"
    assert recipe() == recipe("--training.seed", "3", "--evaluation.shots", "1") == name
    assert recipe("--training.iterations", "10") is None


def test_a_recipe_for_data_of_ones_own_needs_to_be_told_where_they_are(pictures, capsys):
    def recipe(*flags: str) -> str | None:
        return parse(["pictures/protonet", *flags])[1]

    place = ["--data.path", str(pictures)]
    assert recipe(*place) == recipe(*place, "--training.seed", "3")
    assert recipe(*place) == "recipes/pictures/protonet.toml"
    assert recipe(*place, "--data.size", "16") is None
    with pytest.raises(SystemExit):
        recipe()
    assert "--data.path" in capsys.readouterr().err


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


@pytest.mark.parametrize("what", ["learners", "backbones", "datasets", "recipes"])
def test_list(what, capsys):
    assert main(["list", what, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(row["name"] for row in rows) and len(rows) >= 4


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


def test_a_row_may_be_chosen_with_an_equals_sign(capsys):
    with pytest.raises(SystemExit):
        main(["train", "maml", "--data=sinusoid", "--backbone=mlp", "--help"])
    assert "--data.variant" in capsys.readouterr().out


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_builds_its_flags(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", name, "--help"])
    assert stop.value.code == 0
    assert "--training.iterations" in capsys.readouterr().out


def test_results_go_where_they_are_asked_to(flags, tmp_path):
    arguments = [*flags, "--training.seed", "3", "--results", str(tmp_path / "results")]
    assert main(["train", "protonet", *arguments, "--out", str(tmp_path / "a")]) == 0
    path = Path(tmp_path / "results" / "image_folder" / "protonet.json")
    assert {row["seed"] for row in read_results(path)} == {3}
    arguments[-3] = "4"
    assert main(["train", "protonet", *arguments, "--out", str(tmp_path / "b")]) == 0
    assert {row["seed"] for row in read_results(path)} == {3, 4}


def test_evaluate_labels_rows_with_what_was_asked_for(run_folder, capsys):
    flags = ["--evaluation.split", "val", "--evaluation.seed", "7", "--evaluation.ways", "3"]
    assert main(["evaluate", str(run_folder), *flags, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {(row["split"], row["evaluation_seed"], row["way"]) for row in rows} == {("val", 7, 3)}


def test_what_cannot_be_evaluated_fails_before_training(flags, tmp_path, capsys):
    arguments = ["train", "protonet", *flags, "--evaluation.shots", "50"]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 1
    assert "needs 53" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_help_of_a_partial_is_that_of_its_class(capsys):
    with pytest.raises(SystemExit):
        main(["train", "fomaml", "--help"])
    shown = capsys.readouterr().out
    assert "inner learning rate" in shown and "partial(" not in shown


def test_a_backbone_for_pictures_refuses_points(capsys):
    assert main(["train", "maml", "--data", "sinusoid"]) == 1
    assert "such as mlp" in capsys.readouterr().err


def test_another_learner_is_scored_on_a_runs_encoder(run_folder, tmp_path, capsys):
    asked = ["evaluate", str(run_folder), "--learner", "nearest_centroid", "--json"]
    assert main([*asked, "--learner.normalize"]) == 0
    rows = json.loads(capsys.readouterr().out)
    of_encoder = [row for row in rows if row["backbone"] == "conv4"]
    assert [(row["learner"], row["shot"]) for row in of_encoder] == [
        ("nearest_centroid", 1),
        ("nearest_centroid", 2),
    ]
    # Without its options it is ProtoNet's own prediction, up to the scale of its logits.
    assert main(["evaluate", str(run_folder), "--learner=nearest_centroid", "--json"]) == 0
    plain = [row for row in json.loads(capsys.readouterr().out) if row["backbone"] == "conv4"]
    own = [row for row in read_results(run_folder / "results.json") if row["backbone"] == "conv4"]
    assert [row["accuracy"] for row in plain] == [row["accuracy"] for row in own]


def test_what_a_trained_encoder_of_maml_can_be_used_for(flags, tmp_path, capsys):
    folder = tmp_path / "maml"
    maml = [*flags, "--evaluation.episodes", "2"]
    assert main(["train", "maml", *maml, "--out", str(folder)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--learner", "nil", "--json"]) == 0
    assert "nil" in {row["learner"] for row in json.loads(capsys.readouterr().out)}
    assert main(["evaluate", str(folder), "--learner", "nearest_centroid"]) == 1
    assert "which keeps none: nil can read" in capsys.readouterr().err
    figure = tmp_path / "similarity.png"
    assert main(["evaluate", str(folder), "--similarity", str(figure)]) == 0
    assert figure.stat().st_size > 0
    assert main(["evaluate", str(folder), "--learner", "nil", "--similarity", str(figure)]) == 1
    assert "nil adapts no layers" in capsys.readouterr().err
