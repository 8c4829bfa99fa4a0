"""`kshot data` says what it cannot do."""

from kshot.cli import main


def test_no_episodes_cannot_be_kept(tmp_path, capsys):
    file = tmp_path / "episodes"
    assert main(["data", "glyphs", "--freeze", str(file), "--num-episodes", "0"]) == 1
    assert "--num-episodes must be 1 or more, not 0" in capsys.readouterr().err
    assert not file.exists()
