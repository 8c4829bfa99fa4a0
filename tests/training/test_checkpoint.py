import errno
import json

import pytest
import torch
from safetensors.torch import save_file

from kshot.data import atomic
from kshot.learners.metric.prototypical import ProtoNet
from kshot.training import checkpoint as module
from kshot.training.checkpoint import (
    CheckpointError,
    CheckpointFolder,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)

TENSORS = {"learner/weight": torch.arange(6.0).view(2, 3), "optimizer/0/step": torch.tensor(3)}


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", TENSORS, {"learner": "protonet", "iteration": 3})
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.state == {"learner": "protonet", "iteration": 3}
    assert all(torch.equal(loaded.tensors[name], TENSORS[name]) for name in TENSORS)
    assert torch.equal(loaded.section("learner")["weight"], TENSORS["learner/weight"])


def test_no_partial_file_is_left(tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", TENSORS, {})
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("length", [0, 7, 100, -10])
def test_a_truncated_checkpoint_is_refused(tmp_path, length):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, TENSORS, {})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="truncated, damaged or not a checkpoint"):
        load_checkpoint(path)


def test_a_flipped_bit_is_found(tmp_path):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, TENSORS, {})
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="checksum differs"):
        load_checkpoint(path)


def test_another_programs_file_is_refused(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="not a checkpoint of kshot"):
        load_checkpoint(tmp_path / "a.safetensors")


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FORMAT", 99)
    save_checkpoint(tmp_path / "a.safetensors", TENSORS, {})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"format 99 .* Install a newer kshot"):
        load_checkpoint(tmp_path / "a.safetensors")


def test_a_damaged_latest_falls_back_to_the_one_before(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save(100, TENSORS, {"iteration": 100})
    latest = folder.save(200, TENSORS, {"iteration": 200})
    latest.write_bytes(latest.read_bytes()[:50])
    with pytest.warns(UserWarning, match="Falling back to step_000000100"):
        path, loaded = folder.load_latest()
    assert path.name == "step_000000100.safetensors"
    assert loaded.state["iteration"] == 100


def test_the_best_weights_are_used_with_the_state_of_the_latest(tmp_path):
    folder = CheckpointFolder(tmp_path)
    best = {"training": {"iteration": 100, "best_score": 0.9, "best_iteration": 100}}
    latest = {"training": {"iteration": 200, "best_score": 0.9, "best_iteration": 100}}
    save_checkpoint(folder.best, {"learner/weight": torch.zeros(2)}, best)
    assert folder.load_for_use().state == best, "the best alone is enough"
    folder.save(200, {"learner/weight": torch.ones(2)}, latest)
    used = folder.load_for_use()
    assert used.state == latest
    later = {"training": {"iteration": 250, "best_score": 0.95, "best_iteration": 250}}
    save_checkpoint(folder.best, {"learner/weight": torch.zeros(2)}, later)
    assert folder.load_for_use().state == later, "training was killed before the next checkpoint"
    assert torch.equal(used.tensors["learner/weight"], torch.zeros(2))

    folder.best.write_bytes(folder.best.read_bytes()[:50])
    with pytest.warns(UserWarning, match="latest weights are used instead"):
        used = folder.load_for_use()
    assert torch.equal(used.tensors["learner/weight"], torch.ones(2))
    assert used.state["training"] == {"iteration": 200, "best_score": None, "best_iteration": 0}


def test_the_previous_checkpoint_is_kept_and_older_ones_go(tmp_path):
    folder = CheckpointFolder(tmp_path)
    for iteration in (1, 2, 3, 4):
        folder.save(iteration, TENSORS, {})
    assert [path.stem for path in folder.steps()] == ["step_000000003", "step_000000004"]


def test_a_folder_without_checkpoints_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="no usable checkpoint"):
        CheckpointFolder(tmp_path).load_latest()


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, TENSORS, {"iteration": 1})

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*Free .* MB"):
        save_checkpoint(path, TENSORS, {"iteration": 2})
    assert load_checkpoint(path).state == {"iteration": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_weights_of_another_learner_or_shape_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    learner = ProtoNet(torch.nn.Linear(3, 2))
    tensors = {f"learner/{key}": value for key, value in learner.state_dict().items()}
    save_checkpoint(path, tensors, {"learner": "protonet"})
    with pytest.raises(CheckpointError, match="of the learner 'protonet', not of 'maml'"):
        load_weights(learner, load_checkpoint(path), "maml", path)
    with pytest.raises(CheckpointError, match="does not fit the learner"):
        wider = ProtoNet(torch.nn.Linear(3, 4))
        load_weights(wider, load_checkpoint(path), "protonet", path)


def test_the_header_is_json_and_no_pickle(tmp_path):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, TENSORS, {"learner": "protonet"})
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert json.loads(header["__metadata__"]["kshot"])["state"] == {"learner": "protonet"}
