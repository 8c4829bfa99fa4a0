"""Where what a command gives can go is found out before its work."""

from pathlib import Path

import pytest

from kshot.cli import main
from kshot.cli.outputs import check_outputs


def test_what_can_be_written_passes_and_nothing_is_left(tmp_path: Path):
    file = tmp_path / "new" / "rows.json"
    check_outputs(file, tmp_path / "drawn" / "a.svg", None, folder=tmp_path / "figures")
    check_outputs(None, None)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["drawn", "figures", "new"]


@pytest.mark.parametrize("content", [b"[1]", b"{}", b"hello", b"\xff\xfe\x00"])
def test_rows_are_not_merged_into_another_programs_file(tmp_path: Path, content: bytes):
    file = tmp_path / "rows.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="a list of result rows") as error:
        check_outputs(file)
    assert str(file) in str(error.value)
    assert file.read_bytes() == content


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path):
    file = tmp_path / "file"
    file.touch()
    for given in ({"results": file / "rows.json"}, {"results": None, "folder": file}):
        with pytest.raises(ValueError, match=rf"Nothing can be written into {file} \("):
            check_outputs(**given)
    with pytest.raises(ValueError, match="Nothing can be written into"):
        check_outputs(None, file / "a.png")


def test_a_picture_of_an_unknown_format_is_told(tmp_path: Path):
    with pytest.raises(ValueError, match=r"a\.xyz .* \.png, .*not '\.xyz'"):
        check_outputs(None, tmp_path / "a.xyz")
    with pytest.raises(ValueError, match="is a folder: name a picture file in it"):
        check_outputs(None, tmp_path)


def test_a_wrong_place_for_results_is_told_before_the_work(run_folder, tmp_path, capsys):
    for command in ("evaluate", "verify"):
        assert main([command, str(run_folder), "--results", str(tmp_path)]) == 1
        assert f"{tmp_path} is a folder: name a JSON file" in capsys.readouterr().err
    file = tmp_path / "results.json"
    file.touch()
    assert main(["train", "protonet", "--results", str(file), "--out", str(tmp_path / "run")]) == 1
    assert "is a file: name the folder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
