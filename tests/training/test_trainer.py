import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kshot.backbones.conv4 import Conv4
from kshot.backbones.heads import WithHead
from kshot.backbones.normalization import BatchNorm
from kshot.config import TrainingConfig
from kshot.evaluation.evaluate import Evaluation, NoNumberError
from kshot.learners.baselines.nearest_centroid import NearestCentroid
from kshot.learners.metric.prototypical import ProtoNet
from kshot.learners.optimization.maml import MAML
from kshot.losses import cross_entropy
from kshot.training import trainer as module
from kshot.training.checkpoint import CheckpointFolder, load_checkpoint
from kshot.training.history import read_history
from kshot.training.trainer import Interrupted, TrainingDiverged, meta_train

SHORT = TrainingConfig(
    iterations=12,
    meta_batch_size=2,
    validate_every=4,
    validation_episodes=6,
    checkpoint_every=3,
    device="cpu",
)


def protonet():
    torch.manual_seed(0)
    return ProtoNet(Conv4((1, 16, 16), hidden=8))


def maml():
    torch.manual_seed(0)
    return MAML(WithHead(Conv4((1, 16, 16), hidden=8, strided=True), 5), inner_lr=0.5)


def weights(learner):
    return torch.cat([value.flatten() for value in learner.state_dict().values()])


class Killed(Exception):
    """Stands for what ends a process."""


class DyingSampler:
    """Gives episodes until one of a number is asked for."""

    def __init__(self, sampler, last):
        self.sampler, self.last = sampler, last

    def sample(self, episodes):
        if self.last in episodes:
            raise Killed
        return self.sampler.sample(episodes)


@pytest.mark.parametrize("make", [protonet, maml])
def test_a_resumed_training_is_bit_identical(make, sampler, tmp_path):
    whole, resumed = make(), make()
    meta_train(whole, sampler, SHORT, validation=sampler, quiet=True)

    options = {"validation": sampler, "folder": tmp_path, "quiet": True}
    dying = DyingSampler(sampler, 14)  # in the meta-batch of iteration 7
    with pytest.raises(Killed):
        meta_train(resumed, dying, SHORT, **options)
    fresh = make()
    state = meta_train(fresh, sampler, SHORT, **options, resume=True)
    assert state.iteration == 12
    assert torch.equal(weights(fresh), weights(whole))
    lines = [row["iteration"] for row in read_history(tmp_path / "metrics.jsonl")]
    assert lines == [4, 8, 12]


def test_a_resumed_training_tells_of_the_steps_before_it(sampler, tmp_path):
    """Losses of the steps since the last line of metrics.jsonl, of which some were before."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    meta_train(protonet(), sampler, SHORT, folder=whole, quiet=True)
    with pytest.raises(Killed):
        meta_train(protonet(), DyingSampler(sampler, 14), SHORT, folder=resumed, quiet=True)
    meta_train(protonet(), sampler, SHORT, folder=resumed, resume=True, quiet=True)
    losses = [
        [row["loss"] for row in read_history(folder / "metrics.jsonl")]
        for folder in (whole, resumed)
    ]
    assert losses[0] == losses[1]


KILLED_TRAINING = """
import sys, time
from dataclasses import replace
from pathlib import Path
import numpy as np, torch
from kshot import EpisodeConfig, EpisodeSampler, LabelledDataset, ProtoNet, Conv4, TrainingConfig
from kshot import meta_train
torch.set_num_threads(1)
random = np.random.default_rng(0)
data = LabelledDataset.from_labels(
    random.integers(0, 256, (160, 1, 16, 16), dtype=np.uint8), np.repeat(np.arange(20), 8))
sampler = EpisodeSampler(data, EpisodeConfig(way=5, shot=1, query_shot=3))
class Slow:
    def sample(self, episodes):
        time.sleep(float(sys.argv[3]))
        return sampler.sample(episodes)
torch.manual_seed(0)
learner = ProtoNet(torch.nn.Sequential(Conv4((1, 16, 16), hidden=8), torch.nn.Dropout(0.2)))
config = TrainingConfig(iterations=60, checkpoint_every=5, validate_every=60, device="cpu")
folder = Path(sys.argv[1])
meta_train(learner, Slow(), config, folder=folder, resume=sys.argv[2] == "resume", quiet=True)
torch.save(learner.state_dict(), folder / "weights.pt")
"""


def test_kill_9_and_resume_is_bit_identical(tmp_path):
    def start(folder, mode, pause):
        arguments = [sys.executable, "-c", KILLED_TRAINING, str(folder), mode, str(pause)]
        return subprocess.Popen(arguments, env={**os.environ, "OMP_NUM_THREADS": "1"})

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole, "fresh", 0).wait(120) == 0
    victim = start(killed, "fresh", 0.05)
    deadline = time.monotonic() + 60
    while len(list((killed / "checkpoints").glob("step_*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert not (killed / "weights.pt").exists(), "it was killed while it trained"
    assert start(killed, "resume", 0).wait(120) == 0
    first, second = torch.load(whole / "weights.pt"), torch.load(killed / "weights.pt")
    assert all(torch.equal(first[name], second[name]) for name in first)


PARALLEL_TRAINING = """
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np, torch
from kshot import (
    Conv4, EpisodeConfig, EpisodeSampler, LabelledDataset, MAML, ProtoNet, Reptile, WithHead)
from kshot import TrainingConfig, meta_train
torch.set_num_threads(1)
random = np.random.default_rng(0)
data = LabelledDataset.from_labels(
    random.integers(0, 256, (160, 1, 16, 16), dtype=np.uint8), np.repeat(np.arange(20), 8))
sampler = EpisodeSampler(data, EpisodeConfig(way=5, shot=1, query_shot=3))
compiled = sys.argv[2] == "compiled"
torch.compile = lambda graph, **options: graph  # the graph alone, which saves minutes

def make():
    torch.manual_seed(0)
    net = WithHead(Conv4((1, 16, 16), hidden=8, strided=True), 5)
    if sys.argv[2] == "maml" or compiled:
        return MAML(net, inner_lr=0.5)
    if sys.argv[2] == "reptile":
        return Reptile(net, carry_over=True)
    return ProtoNet(Conv4((1, 16, 16), hidden=8), batch_norm=sys.argv[2])

# Not Adam: a bias before BatchNorm has no gradient but rounding, which Adam blows up to its rate.
config = TrainingConfig(
    iterations=20, meta_batch_size=4, device="cpu", optimizer="sgd", outer_lr=0.1,
    precision="float64", compile=compiled, micro_batch_size=int(compiled))
learner, folder = make(), Path(sys.argv[1]).with_suffix("")
meta_train(learner, sampler, replace(config, iterations=8), folder=folder, quiet=True)
if not compiled:  # what is learned is in the checkpoint alone
    learner = make()
meta_train(learner, sampler, config, folder=folder, resume=True, quiet=True)
# Threads of a group that is left would abort the process at its end, now and then.
threads = [name.read_text() for name in Path("/proc/self/task").glob("*/comm")]
assert not [name for name in threads if "gloo" in name], threads
import os
if os.environ.get("RANK", "0") == "0":
    torch.save(learner.state_dict(), sys.argv[1])
"""


def train_with_processes(count, path, learner):
    script = path.with_suffix(".py")
    script.write_text(PARALLEL_TRAINING)
    command = [sys.executable, str(script), str(path), learner]
    if count > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        command = [sys.executable, *launcher, str(script), str(path), learner]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "KSHOT_CHECK_TYPES": "0"}
    process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert process.returncode == 0, process.stderr
    tensors = torch.load(path)
    return torch.cat([value.flatten().double() for value in tensors.values()])


@pytest.mark.parametrize("learner", ["maml", "batch", "reptile"])
def test_two_processes_equal_one(learner, tmp_path):
    one = train_with_processes(1, tmp_path / "one.pt", learner)
    two = train_with_processes(2, tmp_path / "two.pt", learner)
    assert (one - two).abs().max() < 1e-10
    if learner == "maml":
        compiled = train_with_processes(2, tmp_path / "compiled.pt", "compiled")
        assert (one - compiled).abs().max() < 1e-10


def test_a_meta_batch_that_cannot_be_shared_says_so():
    with pytest.raises(ValueError, match="multiple of the number of processes"):
        module.Processes(0, 2).share(range(3))


def scored(accuracy: float) -> Evaluation:
    """A validation that every episode scores alike."""
    return Evaluation(np.array([accuracy, accuracy]), "accuracy", "running", False)


def test_the_best_weights_by_validation_are_kept(sampler, tmp_path, monkeypatch):
    scores = iter([0.5, 0.9, 0.7])
    seen = []

    def validate(learner, *arguments):
        seen.append(weights(learner).clone())
        return scored(next(scores))

    monkeypatch.setattr(module, "evaluate", validate)
    learner = protonet()
    state = meta_train(
        learner, sampler, SHORT, validation=sampler, folder=str(tmp_path), quiet=True
    )
    assert (state.best_iteration, round(state.best_score, 3)) == (8, 0.9)
    assert torch.equal(weights(learner), seen[1])
    assert CheckpointFolder(tmp_path / "checkpoints").best.exists()


def test_weights_of_the_best_validations_are_kept_for_an_ensemble(sampler, tmp_path, monkeypatch):
    scores = [0.5, 0.9, 0.7, 0.4, 0.8]
    seen = []

    def validate(learner, *arguments):
        seen.append(weights(learner).clone())
        return scored(scores[len(seen) - 1])

    monkeypatch.setattr(module, "evaluate", validate)
    config = replace(SHORT, iterations=10, validate_every=2, keep_best=3)
    options = {"validation": sampler, "folder": tmp_path, "quiet": True}
    state = meta_train(protonet(), sampler, config, **options)
    good = [[iteration, round(score, 3)] for iteration, score in state.good]
    assert good == [[4, 0.9], [10, 0.8], [6, 0.7]]
    folder = CheckpointFolder(tmp_path / "checkpoints")
    kept = sorted(folder.folder.glob("good_*"))
    assert kept == [folder.good(iteration) for iteration in (4, 6, 10)]
    like = protonet()
    like.load_state_dict(load_checkpoint(folder.good(6)).section("learner"))
    assert torch.equal(weights(like), seen[2])


def test_an_ensemble_is_of_the_weights_that_are_kept(sampler, tmp_path, monkeypatch):
    scores = iter([0.5, 0.6, 0.7, 0.8, 0.9])
    monkeypatch.setattr(module, "evaluate", lambda *arguments: scored(next(scores)))
    config = replace(SHORT, iterations=10, validate_every=2, checkpoint_every=5, keep_best=2)
    options = {"validation": sampler, "folder": tmp_path, "quiet": True}
    folder = CheckpointFolder(tmp_path / "checkpoints")

    def kept():
        listed = folder.load_for_use().state["training"]["good"]
        assert all(folder.good(iteration).exists() for iteration, _ in listed)
        return [iteration for iteration, _ in listed]

    stopped = DyingSampler(sampler, 9 * SHORT.meta_batch_size)
    with pytest.raises(Killed):
        meta_train(protonet(), stopped, config, **options)
    assert kept() == [8, 6]
    folder.steps()[-1].unlink()  # as if killed between the weights and the checkpoint
    assert kept() == [8, 6]
    scores = iter([0.8, 0.9])
    meta_train(protonet(), sampler, config, **options, resume=True)
    assert kept() == [10, 8]
    assert len(list(folder.folder.glob("good_*"))) == 2


def test_scores_that_differ_by_rounding_alone_are_equal(sampler, monkeypatch):
    scores = iter([0.5, 0.5 + 1e-12, 0.6])
    monkeypatch.setattr(module, "evaluate", lambda *arguments: scored(next(scores)))
    config = TrainingConfig(iterations=2, validate_every=1, device="cpu")
    state = meta_train(protonet(), sampler, config, validation=sampler, quiet=True)
    assert (state.best_iteration, state.waited) == (1, 1)


def test_a_validation_without_a_score_does_not_end_the_training(sampler, tmp_path, monkeypatch):
    outcomes = iter([None, 0.5, None])

    def validate(*arguments):
        score = next(outcomes)
        if score is None:
            raise NoNumberError("The learner predicts NaN in episodes 0 to 4.")
        return scored(score)

    monkeypatch.setattr(module, "evaluate", validate)
    with pytest.warns(UserWarning, match=r"after iteration (4|12) gives no score.*predicts NaN"):
        state = meta_train(
            protonet(), sampler, SHORT, validation=sampler, folder=tmp_path, quiet=True
        )
    assert (state.best_iteration, state.best_score, state.waited) == (8, 0.5, 1)
    rows = read_history(tmp_path / "metrics.jsonl")
    assert ["validation accuracy" in row for row in rows] == [False, True, False]


def test_a_part_that_is_kept_in_evaluation_mode_stays_there(sampler):
    learner = MAML(WithHead(Conv4((1, 16, 16), hidden=4), 5), inner_lr=0.1, batch_norm="running")
    layer = next(each for each in learner.modules() if isinstance(each, BatchNorm))
    layer.eval()
    meta_train(learner, sampler, SHORT, validation=sampler, quiet=True)
    assert learner.training and not layer.training and not layer.running_mean.any()
    meta_train(learner.eval(), sampler, SHORT, quiet=True)
    assert layer.training


def test_training_stops_early_when_validation_no_longer_improves(sampler, monkeypatch):
    scores = iter([0.9, 0.8, 0.7, 0.6, 0.5])
    monkeypatch.setattr(module, "evaluate", lambda *arguments: scored(next(scores)))
    config = TrainingConfig(iterations=10, validate_every=1, patience=2, device="cpu")
    state = meta_train(protonet(), sampler, config, validation=sampler, quiet=True)
    assert (state.iteration, state.best_iteration) == (3, 1)


def test_a_training_that_stopped_early_is_done_when_it_is_resumed(sampler, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "evaluate", lambda *arguments: scored(0.5))
    config = TrainingConfig(iterations=10, validate_every=1, patience=2, device="cpu")
    options = {"validation": sampler, "folder": tmp_path, "quiet": True}
    stopped = meta_train(protonet(), sampler, config, **options)
    resumed = meta_train(protonet(), sampler, config, **options, resume=True)
    assert stopped.iteration == resumed.iteration == 3


def test_a_training_that_was_killed_before_its_first_checkpoint_begins_anew(sampler, tmp_path):
    learner, resumed = protonet(), protonet()
    meta_train(learner, sampler, SHORT, quiet=True)
    with pytest.warns(UserWarning, match="no checkpoint .* begins anew"):
        meta_train(resumed, sampler, SHORT, folder=tmp_path, resume=True, quiet=True)
    torch.testing.assert_close(resumed.state_dict(), learner.state_dict(), rtol=0, atol=0)


def test_a_damaged_best_is_forgotten_when_training_is_resumed(sampler, tmp_path):
    options = {"validation": sampler, "folder": tmp_path, "quiet": True}
    meta_train(protonet(), sampler, SHORT, **options)
    best = CheckpointFolder(tmp_path / "checkpoints").best
    best.write_bytes(best.read_bytes()[:99])
    with pytest.warns(UserWarning, match="latest weights are used instead"):
        state = meta_train(protonet(), sampler, SHORT, **options, resume=True)
    assert state.best_score is None and state.best_iteration == 0


def test_a_loss_that_is_not_finite_stops_training(sampler, tmp_path):
    config = TrainingConfig(iterations=9, checkpoint_every=2, validate_every=9, device="cpu")

    class Explosive(ProtoNet):
        calls = 0

        def meta_loss(self, episodes):
            self.calls += 1
            return super().meta_loss(episodes) * (float("nan") if self.calls == 6 else 1.0)

    learner = Explosive(Conv4((1, 16, 16), hidden=4))
    with pytest.raises(TrainingDiverged, match=r"nan at iteration 5.*step_000000004"):
        meta_train(learner, sampler, config, folder=tmp_path, quiet=True)
    assert weights(learner).isfinite().all()
    CheckpointFolder(tmp_path / "checkpoints").load_latest()


def test_a_training_can_go_on_from_its_last_validation(sampler, tmp_path):
    options = {"validation": sampler, "folder": tmp_path, "quiet": True}
    config = replace(SHORT, checkpoint_every=100)
    with pytest.raises(Killed):
        meta_train(protonet(), DyingSampler(sampler, 6 * config.meta_batch_size), config, **options)
    resumed, learner = protonet(), protonet()
    meta_train(resumed, sampler, config, **options, resume=True)
    meta_train(learner, sampler, config, validation=sampler, quiet=True)
    assert torch.equal(weights(resumed), weights(learner))
    assert [row["iteration"] for row in read_history(tmp_path / "metrics.jsonl")] == [4, 8, 12]


def test_ctrl_c_saves_and_training_can_go_on(sampler, tmp_path):
    class Interrupting:
        def sample(self, episodes):
            if 8 in episodes:
                signal.raise_signal(signal.SIGINT)
            return sampler.sample(episodes)

    with pytest.raises(Interrupted, match="after iteration 5"):
        meta_train(protonet(), Interrupting(), SHORT, folder=tmp_path, quiet=True)
    _, checkpoint = CheckpointFolder(tmp_path / "checkpoints").load_latest()
    assert checkpoint.state["training"]["iteration"] == 5
    state = meta_train(protonet(), sampler, SHORT, folder=tmp_path, resume=True, quiet=True)
    assert state.iteration == 12


def test_training_works_outside_the_main_thread(sampler):
    config = TrainingConfig(iterations=1, device="cpu")
    thread = threading.Thread(target=meta_train, args=(protonet(), sampler, config))
    thread.start()
    thread.join()


def test_the_loss_on_other_episodes_falls(sampler):
    learner, others = protonet(), sampler.sample(range(1000, 1020))
    before = learner.eval().meta_loss(others).item()
    meta_train(learner, sampler, TrainingConfig(iterations=40, device="cpu"), quiet=True)
    assert learner.eval().meta_loss(others).item() < 0.8 * before


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
def test_precision(precision, sampler):
    learner = protonet()
    config = TrainingConfig(iterations=2, precision=precision, device="cpu")
    meta_train(learner, sampler, config, quiet=True)
    expected = torch.float64 if precision == "float64" else torch.float32
    assert all(p.dtype == expected and p.isfinite().all() for p in learner.parameters())


def test_a_learner_with_nothing_to_train_says_so(sampler):
    with pytest.raises(ValueError, match="no meta-parameters"):
        meta_train(NearestCentroid(torch.nn.Flatten()), sampler, TrainingConfig(device="cpu"))


def test_gradients_are_clipped(sampler):
    learner = protonet()
    before = weights(learner).clone()
    config = TrainingConfig(
        iterations=1, optimizer="sgd", outer_lr=1.0, clip_norm=1e-3, schedule="constant"
    )
    meta_train(learner, sampler, config, quiet=True)
    moved = [
        (new - old).norm() ** 2
        for new, old in zip(
            (p.detach().flatten() for p in learner.parameters()),
            (p.detach().flatten() for p in protonet().parameters()),
            strict=True,
        )
    ]
    assert float(sum(moved)) ** 0.5 == pytest.approx(1e-3, rel=1e-3)
    assert not torch.equal(before, weights(learner))


def test_checkpoints_hold_the_optimizer_and_the_random_state(sampler, tmp_path):
    meta_train(protonet(), sampler, SHORT, folder=tmp_path, name="protonet", quiet=True)
    path = CheckpointFolder(Path(tmp_path) / "checkpoints").steps()[-1]
    checkpoint = load_checkpoint(path)
    assert checkpoint.state["learner"] == "protonet"
    assert checkpoint.section("optimizer")
    assert "random/cpu" in checkpoint.tensors
    assert cross_entropy.name == "cross_entropy"


def test_a_folder_with_checkpoints_is_not_trained_into_anew(sampler, tmp_path):
    config = TrainingConfig(iterations=2, device="cpu")
    meta_train(protonet(), sampler, config, folder=tmp_path, quiet=True)
    with pytest.raises(FileExistsError, match="resume=True"):
        meta_train(protonet(), sampler, config, folder=tmp_path, quiet=True)


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(sampler):
    class Steep(ProtoNet):
        def meta_loss(self, episodes):
            loss = super().meta_loss(episodes)
            return loss + 0 * (loss - loss.detach()).sqrt()  # finite, with an infinite slope

    learner = Steep(Conv4((1, 16, 16), hidden=4))
    with pytest.raises(TrainingDiverged, match="norm of the meta-gradient is nan at iteration 0"):
        meta_train(learner, sampler, TrainingConfig(iterations=2, device="cpu"), quiet=True)
    assert weights(learner).isfinite().all()


@pytest.mark.parametrize("micro_batch_size", [1, 3])
def test_micro_batches_leave_the_training_as_it_is(micro_batch_size, sampler):
    config = TrainingConfig(
        iterations=4,
        meta_batch_size=4,
        device="cpu",
        optimizer="sgd",
        outer_lr=0.1,
        precision="float64",
    )
    whole, parts = maml(), maml()
    meta_train(whole, sampler, config, quiet=True)
    meta_train(parts, sampler, replace(config, micro_batch_size=micro_batch_size), quiet=True)
    assert (weights(whole) - weights(parts)).abs().max() < 1e-12
