"""`kshot predict RUN`: a trained run names pictures from a few examples of each class."""

import json
import shutil
from pathlib import Path

import pytest

from kshot.cli import main


def test_a_run_predicts_without_the_data_it_was_trained_on(run_folder, pictures, tmp_path, capsys):
    folder = tmp_path / "moved"
    shutil.copytree(run_folder, folder)
    described = json.loads((folder / "run.json").read_text())
    described["config"]["data"]["path"] = str(tmp_path / "gone")
    (folder / "run.json").write_text(json.dumps(described))
    query = str(pictures / "test" / "test0" / "6.png")
    support = ["--support", str(pictures / "test")]
    assert main(["predict", str(folder), *support, "--query", query, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["classes"][0]["class"] == "test0"
    assert main(["evaluate", str(folder)]) == 1
    assert "gone" in capsys.readouterr().err


def test_predict_names_pictures(run_folder, pictures, capsys):
    support = pictures / "test"
    queries = [str(support / name / "6.png") for name in ("test0", "test3")]
    arguments = ["predict", str(run_folder), "--support", str(support), "--query", *queries]
    assert main([*arguments, "--json", "--top", "2"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [answer["picture"] for answer in answers] == queries
    assert [answer["classes"][0]["class"] for answer in answers] == ["test0", "test3"]
    assert main(arguments) == 0
    assert "test3" in capsys.readouterr().out


def test_predict_names_the_pictures_of_a_folder_and_goes_on_after_a_bad_one(
    run_folder, pictures, tmp_path, capsys
):
    support = pictures / "test"
    queries = tmp_path / "queries"
    shutil.copytree(support / "test3", queries)
    (queries / "0.png").write_bytes(b"no picture")
    named = ["predict", str(run_folder), "--support", str(support), "--query", str(queries)]
    assert main([*named, "--json"]) == 1
    captured = capsys.readouterr()
    answers = json.loads(captured.out)
    assert [Path(answer["picture"]).name for answer in answers] == sorted(
        path.name for path in queries.iterdir()
    )
    assert "0.png" in captured.err and captured.err.count("kshot predict:") == 1
    assert "error" in answers[0] and not any("error" in answer for answer in answers[1:])
    assert main(named) == 1
    assert "not read" in capsys.readouterr().out


def test_predict_says_how_many_classes_a_run_tells_apart(flags, pictures, tmp_path, capsys):
    folder = tmp_path / "maml"
    arguments = [*flags, "--backbone", "conv4_strided", "--evaluation.episodes", "2"]
    assert main(["train", "maml", *arguments, "--out", str(folder)]) == 0
    query = str(pictures / "test" / "test0" / "6.png")
    more = ["--support", str(pictures / "test"), "--query", query]
    with pytest.warns(UserWarning, match="support_and_query"):
        assert main(["predict", str(folder), *more]) == 1
    said = capsys.readouterr().err
    assert "examples of 6 classes, and this run's maml tells at most 5 apart" in said
    assert "--episodes.way 6" in said


def test_predict_with_a_transductive_learner_converts_it(flags, pictures, tmp_path, capsys):
    folder = tmp_path / "maml"
    arguments = [*flags, "--backbone", "conv4_strided", "--evaluation.ways", "6"]
    assert main(["train", "maml", *arguments, "--out", str(folder)]) == 0
    capsys.readouterr()
    support, query = str(pictures / "test"), str(pictures / "test" / "test0" / "6.png")
    with pytest.warns(UserWarning, match="support_and_query"):
        main(["predict", str(folder), "--support", support, "--query", query, "--json"])
    alone = json.loads(capsys.readouterr().out)[0]
    others = [str(path) for path in sorted((pictures / "test" / "test4").glob("*.png"))]
    with pytest.warns(UserWarning, match="support_and_query"):
        main(["predict", str(folder), "--support", support, "--query", query, *others, "--json"])
    together = json.loads(capsys.readouterr().out)[0]
    assert alone["classes"][0]["class"] == together["classes"][0]["class"]
    assert alone["classes"][0]["probability"] == pytest.approx(
        together["classes"][0]["probability"], abs=1e-5
    )


@pytest.mark.parametrize(
    ("content", "told"), [("{", "is damaged"), ("{}", "lacks config"), ("[]", "lacks config")]
)
def test_a_damaged_description_of_a_run_says_so(content, told, tmp_path, capsys):
    (tmp_path / "run.json").write_text(content)
    assert main(["predict", str(tmp_path), "--support", ".", "--query", "x.png"]) == 1
    assert told in capsys.readouterr().err
