"""A run's folder gives back what was trained."""

from pathlib import Path

import pytest
import torch

from kshot.recipe import parse_run
from kshot.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from kshot.training.run import (
    Run,
    build_run,
    create_folder,
    discard_unstarted,
    load_run,
    train_run,
)


def small_run() -> Run:
    """A regression, to be trained in float64 for two steps."""
    config = parse_run(
        {
            "data": {"name": "sinusoid"},
            "backbone": {"name": "mlp", "widths": [4]},
            "learner": {"name": "maml"},
            "episodes": {"shot": 2, "query_shot": 2},
            "training": {"iterations": 2, "precision": "float64", "device": "cpu"},
        },
        where="test",
    )
    return build_run(config)


def test_a_run_keeps_all_digits(tmp_path):
    """Weights of a training in float64 are loaded as such."""
    run = small_run()
    create_folder(tmp_path, run, "", None)
    trained = train_run(run, tmp_path, quiet=True).learner.state_dict()
    loaded = load_run(str(tmp_path), "cpu").learner.state_dict()
    torch.testing.assert_close(loaded, trained, rtol=0, atol=0)


def test_a_checkpoint_that_tells_more_than_is_known_says_so(tmp_path: Path):
    """A newer version of kshot may write one."""
    run = small_run()
    create_folder(tmp_path, run, "", None)
    train_run(run, tmp_path, quiet=True)
    for path in (tmp_path / "checkpoints").iterdir():
        tensors, state = load_checkpoint(path)
        state["training"]["mood"] = "good"
        save_checkpoint(path, tensors, state)
    with pytest.raises(CheckpointError, match="another version of kshot, which also tells mood"):
        load_run(tmp_path, "cpu")
    with pytest.raises(CheckpointError, match=r"step_000000002.*another version of kshot"):
        train_run(small_run(), tmp_path, resume=True, quiet=True)


def test_a_run_that_never_started_is_taken_back(tmp_path: Path):
    folder, run = tmp_path / "run", small_run()
    for left in ("metrics.jsonl", "tensorboard/events", "checkpoints/step.tmp"):
        create_folder(folder, run, "", None)
        with pytest.raises(FileExistsError, match="There is a run"):
            create_folder(folder, run, "", None)
        (folder / left).parent.mkdir(exist_ok=True)
        (folder / left).touch()
        discard_unstarted(folder)
        assert not any(folder.iterdir())
    create_folder(folder, run, "", None)
    train_run(run, folder, quiet=True)
    discard_unstarted(folder)
    load_run(folder, "cpu")
