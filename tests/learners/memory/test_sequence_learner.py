"""A learner that reads in turn: which label comes with which example, and what leaves no trace."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.backbones.heads import Flatten
from kshot.episodes import Episodes, Examples, concatenate, map_tensors
from kshot.learners.memory.labels import LetterLabels
from kshot.learners.memory.mann import MANN
from kshot.learners.memory.ntm import NTM
from kshot.learners.memory.recurrent import RecurrentLearner
from kshot.learners.memory.sequence_learner import SequenceLearner
from kshot.losses import mean_squared_error


class Diary(SequenceLearner[Tensor]):
    """Its memory is all that it read, and its logits are the label that it was shown last."""

    def __init__(self, encoder: Flatten, max_way: int, **options: Any) -> None:
        super().__init__(encoder, max_way, **options)
        self.precision = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def initial_state(self, tasks: int) -> Tensor:
        return torch.zeros(tasks, 0, self.embedding_dim + self.labels.size, dtype=torch.float64)

    def project(self, embeddings: Tensor) -> Tensor:
        return embeddings

    def step(self, memory: Tensor, inputs: Tensor, last_label: Tensor) -> tuple[Tensor, Tensor]:
        page = torch.cat([inputs, last_label], -1).unsqueeze(1)
        return 10 * last_label, torch.cat([memory, page], 1)


LEARNERS = {
    "lstm": lambda encoder: RecurrentLearner(encoder, 4, hidden=5),
    "gru": lambda encoder: RecurrentLearner(encoder, 4, cell="gru", hidden=5),
    "ntm": lambda encoder: NTM(encoder, 4, hidden=5, slots=6, width=3),
    "mann": lambda encoder: MANN(encoder, 4, hidden=5, slots=8, width=3, num_heads=2),
    "letters": lambda encoder: RecurrentLearner(encoder, 4, labels="letters", hidden=5),
}


@pytest.fixture(params=LEARNERS)
def learner(request: pytest.FixtureRequest, encoder: Flatten) -> SequenceLearner:
    torch.manual_seed(1)
    return LEARNERS[request.param](encoder).double().eval()  # training draws strings of letters


def test_each_label_comes_one_step_late(encoder: Flatten, episodes: Episodes):
    diary = Diary(encoder, 5)
    inputs, targets, _ = episodes.support
    state = diary.adapt(episodes.support).summary
    none = torch.zeros_like(targets[:, :1])
    late = torch.cat([none, targets[:, :-1]], 1)
    torch.testing.assert_close(state.memory, torch.cat([inputs, F.pad(late, (0, 2))], -1))
    torch.testing.assert_close(state.last_targets, targets[:, -1])
    # What is predicted for a query has seen the last label; for an example, those before it.
    logits = diary.predict(diary.adapt(episodes.support), episodes.query.inputs)
    torch.testing.assert_close(logits, 10 * targets[:, -1:].expand(-1, 3, -1))
    torch.testing.assert_close(diary.predict_in_turn(episodes.support), 10 * late)


def test_rows_that_do_not_count_leave_no_trace(learner: SequenceLearner, episodes: Episodes):
    """Padding and unlabelled rows, wherever they are and whatever they hold."""
    inputs, targets, _ = episodes.support
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[0, [0, 4]] = mask[1, 3] = False
    strange = targets.clone()
    strange[0, 0], strange[1, 6] = torch.nan, 0  # padding, and an unlabelled example
    kept = mask & (strange.nan_to_num().sum(-1) > 0)
    found = learner.adapt(Examples(inputs, strange, mask))
    in_turn = learner.predict_in_turn(Examples(inputs, strange, mask))
    for task in range(2):
        rows = Examples(inputs[task, kept[task]], targets[task, kept[task]])
        alone = map_tensors(lambda tensor: tensor.unsqueeze(0), rows)
        expected = learner.adapt(alone)
        map_tensors(
            lambda a, b, task=task: torch.testing.assert_close(a[task : task + 1], b),
            found,
            expected,
        )
        torch.testing.assert_close(in_turn[task, kept[task]], learner.predict_in_turn(alone)[0])


def test_the_meta_loss_is_that_of_every_prediction(learner: SequenceLearner, episodes: Episodes):
    total = 0
    for task in range(2):
        support, query, _ = map_tensors(lambda x, task=task: x[task : task + 1], episodes)
        rows = []
        for place in range(7 + 3):
            examples, row = (support, place) if place < 7 else (query, place - 7)
            before = map_tensors(lambda x, place=place: x[:, :place], support)
            logits = learner.predict(learner.adapt(before), examples.inputs[:, row : row + 1])
            target = examples.targets[:, row]
            if isinstance(learner.labels, LetterLabels):  # whose logits are log-probabilities
                rows.append(-(logits[0] * target).sum() / LetterLabels.LENGTH)
            else:
                rows.append(F.cross_entropy(logits[0], target))
        total += torch.stack(rows).mean() / 2
    torch.testing.assert_close(learner(episodes), total)


def test_columns_that_are_no_classes_are_left_out(learner: SequenceLearner, episodes: Episodes):
    support, query, classes = episodes
    padded = Episodes(
        support._replace(targets=F.pad(support.targets, (0, 1))),
        query._replace(targets=F.pad(query.targets, (0, 1))),
        F.pad(classes, (0, 1), value=-1),
    )
    torch.testing.assert_close(learner(padded), learner(episodes))


def test_a_class_comes_later(learner: SequenceLearner, episodes: Episodes):
    """A served state learns a third class, and is then as if adapted to all from the start."""
    inputs, targets, _ = episodes.support
    known = targets[..., 2] == 0
    two = Examples(inputs, targets[..., :2], known)
    third = Examples(inputs, targets, ~known)
    served = learner.adapt(two)
    assert learner.predict(served, episodes.query.inputs).shape == (2, 3, 2)
    grown = learner.observe(served, third)
    after = learner.predict(grown, episodes.query.inputs)
    at_once = learner.adapt(concatenate(two._replace(targets=targets), third))
    assert after.shape == (2, 3, 3)
    torch.testing.assert_close(after, learner.predict(at_once, episodes.query.inputs))
    assert learner.predict(served, episodes.query.inputs).shape == (2, 3, 2)


def test_queries_are_not_written(learner: SequenceLearner, episodes: Episodes):
    state = learner.adapt(episodes.support)
    together = learner.predict(state, episodes.query.inputs)
    for place in range(3):
        alone = learner.predict(state, episodes.query.inputs[:, place : place + 1])
        torch.testing.assert_close(alone, together[:, place : place + 1])


def test_the_order_of_examples_matters(learner: SequenceLearner, episodes: Episodes):
    turned = map_tensors(lambda tensor: tensor.flip(1), episodes.support)
    logits = [
        learner.predict(learner.adapt(each), episodes.query.inputs)
        for each in (episodes.support, turned)
    ]
    assert not torch.allclose(*logits)


def test_more_classes_than_outputs_are_refused(learner: SequenceLearner, episodes: Episodes):
    wide = episodes.support._replace(targets=F.pad(episodes.support.targets, (0, 2)))
    with pytest.raises(ValueError, match=r"at most 4 classes, and these have 5: .*max_way"):
        learner.adapt(wide)


def test_values_are_shown_in_regression(encoder: Flatten, episodes: Episodes):
    learner = Diary(encoder, 3, loss=mean_squared_error)
    values = torch.randn(2, 7, 3, dtype=torch.float64)
    values[0, 2] = 0  # a value like any other
    state = learner.adapt(episodes.support._replace(targets=values)).summary
    torch.testing.assert_close(state.memory[:, 1:, 4:], values[:, :-1])


def test_under_autocast_steps_stay_precise(learner: SequenceLearner, episodes: Episodes):
    learner, episodes = learner.float(), episodes.to("cpu", torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = learner(episodes)
    torch.testing.assert_close(loss, learner(episodes))
