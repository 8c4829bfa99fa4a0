"""Strings of letters as labels: which are drawn, what is shown and what counts as right."""

import pytest
import torch

from kshot.backbones.heads import Flatten
from kshot.episodes import Episodes
from kshot.learners.memory.labels import LetterLabels, OneHotLabels
from kshot.learners.memory.recurrent import RecurrentLearner
from kshot.losses import cross_entropy, mean_squared_error


def words(codes: torch.Tensor) -> list[str]:
    """Strings as people read them."""
    letters = codes.unflatten(-1, (5, 5)).argmax(-1)
    return ["".join("abcde"[letter] for letter in word) for word in letters.tolist()]


def test_strings_of_a_task_differ_and_are_drawn_anew_in_training():
    labels = LetterLabels(15)
    torch.manual_seed(0)
    first, second = (labels.codes(torch.zeros(3, 1, 15), drawn=True) for _ in range(2))
    assert first.shape == (3, 15, 25)
    assert (first.unflatten(-1, (5, 5)).sum(-1) == 1).all()
    spelled = [words(task) for task in (*first, *second)]
    assert all(len(set(task)) == 15 for task in spelled)
    assert len({tuple(task) for task in spelled}) == 6
    fixed = labels.codes(torch.zeros(2, 1, 4))
    torch.testing.assert_close(fixed, LetterLabels(15).codes(torch.zeros(2, 1, 15))[:, :4])


def test_what_is_shown_and_what_it_means():
    labels = LetterLabels(3)
    codes = labels.codes(torch.zeros(1, 1, 3))
    targets = torch.eye(3)[None, [2, 0]]
    torch.testing.assert_close(labels.shown(targets, codes), codes[:, [2, 0]])
    none = labels.shown(torch.zeros(1, 1, 3), codes)
    assert not none.any(), "an example without a label shows nothing"
    outputs = torch.randn(1, 2, 25)
    odds = outputs.unflatten(-1, (5, 5)).softmax(-1)
    for row in range(2):
        for c in range(3):
            letters = codes[0, c].view(5, 5).argmax(-1)
            chance = torch.stack([odds[0, row, k, letter] for k, letter in enumerate(letters)])
            found = labels.logits(outputs, codes)[0, row, c].exp()
            torch.testing.assert_close(found, chance.prod())


def test_every_letter_has_to_be_right():
    labels = LetterLabels(2)
    codes = labels.codes(torch.zeros(1, 1, 2))
    targets = torch.eye(2)[None, [0, 0]]
    said = 3 * codes[:, [0, 0]]
    wrong = said[0, 1, :5].roll(1)
    said[0, 1, :5] = wrong  # one letter
    assert labels.right(said, targets, codes, None).tolist() == [[True, False]]
    # Among the two classes the second is still named right: that is what logits say.
    assert (labels.logits(said, codes).argmax(-1) == 0).all()


def test_the_loss_is_that_of_letters():
    labels = LetterLabels(4)
    codes = labels.codes(torch.zeros(2, 1, 4))
    targets = torch.eye(4)[None, [3, 1, 0]].repeat(2, 1, 1)
    outputs = torch.randn(2, 3, 25)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    found = labels.loss(cross_entropy, outputs, targets, mask, codes, None)
    log_odds = (labels.logits(outputs, codes) * targets).sum(-1) / 5
    torch.testing.assert_close(found[0], -log_odds[0, :2].mean())
    torch.testing.assert_close(found[1], -log_odds[1].mean())


def test_training_draws_strings_and_prediction_does_not(encoder: Flatten, episodes: Episodes):
    torch.manual_seed(0)
    learner = RecurrentLearner(encoder, 3, labels="letters", hidden=5).double()
    assert learner(episodes) != learner(episodes)
    state = learner.adapt(episodes.support)
    first, second = (learner.predict(state, episodes.query.inputs) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    learner.eval()
    torch.testing.assert_close(learner(episodes), learner(episodes), rtol=0, atol=0)


def test_what_cannot_be_labelled(encoder: Flatten):
    with pytest.raises(ValueError, match="3125 strings"):
        LetterLabels(3126)
    with pytest.raises(ValueError, match="at most 3 classes, and these have 4"):
        LetterLabels(3).codes(torch.zeros(1, 1, 4), drawn=True)
    with pytest.raises(ValueError, match="at most 3 classes, and these have 4"):
        OneHotLabels(3).codes(torch.zeros(1, 1, 4))
    with pytest.raises(ValueError, match="in regression labels must be 'one_hot'"):
        RecurrentLearner(encoder, 3, labels="letters", loss=mean_squared_error)
