import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from sklearn.base import clone
from torch import nn

from kshot.encoders import Encoder, TextEncoder
from kshot.estimator import FewShotClassifier
from kshot.heads import train_adapter
from kshot.learners.metric.prototypical import ProtoNet
from kshot.predictor import Predictor
from kshot.predictor_file import load_predictor, save_predictor

CITIES = ["a night in paris", "the tower of paris", "paris in spring", "old paris"]
FOOD = ["bread and butter", "a bowl of rice", "soup with bread", "rice with butter"]
MUSIC = ["a song for piano", "loud drums and piano", "the song of drums", "a slow song"]
TEXTS, LABELS = CITIES + FOOD + MUSIC, ["city"] * 4 + ["food"] * 4 + ["music"] * 4


class Words(nn.Module):
    """Bags of words: rows of fixed random numbers, summed by the encoder's mean."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        rows = torch.randn(997, 24, generator=torch.Generator().manual_seed(seed))
        self.rows = nn.Parameter(rows)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.rows[input_ids]


def tokens(texts: list[str]) -> dict[str, torch.Tensor]:
    rows = [[sum(map(ord, word)) * 31 % 997 for word in text.lower().split()] for text in texts]
    longest = max(map(len, rows))
    return {
        "input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in rows]),
        "attention_mask": torch.tensor(
            [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        ),
    }


def words(seed: int = 0) -> TextEncoder:
    return TextEncoder(Words(seed), tokens, max_length=32, device="cpu", spec="python:mine:words")


@pytest.fixture
def encoder() -> Encoder:
    return words()


def points(way: int = 4, shot: int = 5) -> tuple[np.ndarray, list[str]]:
    random = np.random.default_rng(0)
    X = random.normal(size=(way, 1, 12)) + 0.3 * random.normal(size=(way, shot, 12))
    return X.reshape(-1, 12), [f"class {k}" for k in range(way) for _ in range(shot)]


def test_sentences_are_named(encoder):
    predictor = Predictor.fit(TEXTS, LABELS, encoder=encoder)
    assert predictor.predict(["paris by night", "butter on bread"]).labels == ["city", "food"]
    assert predictor.classes == ("city", "food", "music")
    assert predictor.head.chosen.accuracy is not None


def test_what_is_foreign_is_not_known(encoder):
    predictor = Predictor.fit(TEXTS, LABELS, encoder=encoder, false_accept=0.2)
    known = predictor.predict(["old paris in spring", "xylophone quark zebra"]).known
    assert known.tolist() == [True, False]


def test_embeddings_need_no_encoder_and_are_predicted_in_batches():
    X, y = points()
    predictor = Predictor.fit(X, y, head="ridge")
    whole, parts = predictor.predict(X), predictor.predict(X, batch_size=3)
    assert whole.labels == parts.labels
    np.testing.assert_allclose(whole.probabilities, parts.probabilities, atol=1e-6)
    np.testing.assert_allclose(whole.probabilities.sum(1), 1)
    assert predictor.predict(X[:0]).labels == []


def test_adding_is_fitting_to_everything(encoder):
    """The issue's promise: the same as from scratch, whatever the order of classes."""
    first = Predictor.fit(TEXTS[:8], LABELS[:8], encoder=encoder)
    added = first.add(TEXTS[8:], LABELS[8:])
    whole = Predictor.fit(TEXTS, LABELS, encoder=encoder)
    asked = ["paris song", "rice", "a piano in spring"]
    np.testing.assert_array_equal(
        added.predict(asked).probabilities, whole.predict(asked).probabilities
    )
    assert added.classes == whole.classes and added.rejection == whole.rejection
    assert first.classes == ("city", "food")  # as it was


def test_adding_embeds_nothing_again(encoder, monkeypatch):
    first = Predictor.fit(TEXTS[:8], LABELS[:8], encoder=encoder)
    seen: list[str] = []
    whole = type(encoder).embed_batches
    monkeypatch.setattr(
        type(encoder),
        "embed_batches",
        lambda self, inputs, size: (seen.extend(inputs), whole(self, inputs, size))[1],
    )
    fresh = ["a violin that nobody has heard", "a harp that nobody has seen"]
    first.add(fresh, ["music", "music"])
    assert sorted(seen) == sorted(fresh)


def test_names_are_examples_where_they_help(encoder):
    X, y = (
        ["a night out", "spring", "a slow bowl", "old and loud"],
        ["paris", "paris", "rice", "rice"],
    )
    plain = Predictor.fit(X, y, encoder=encoder, head="centroid")
    named = Predictor.fit(X, y, encoder=encoder, head="centroid", use_names=True)
    asked = ["paris", "rice"]
    right = [0, 1]
    gained = named.predict(asked).probabilities - plain.predict(asked).probabilities
    assert (gained[[0, 1], right] > 0).all()
    assert named.support.is_name.tolist() == [False] * 4 + [True] * 2
    more = named.add(["a song for piano"], ["song"])
    assert more.support.is_name.sum() == 3


def test_a_class_may_be_known_by_its_name_alone(encoder):
    """Few-shot and zero-shot in one: two classes with examples, one without."""
    options = {"encoder": encoder, "head": "centroid", "use_names": True}
    predictor = Predictor.fit(TEXTS[:8], LABELS[:8], **options, classes=["piano song"])
    assert predictor.classes == ("city", "food", "piano song")
    assert predictor.predict(["a song for piano", "old paris"]).labels == ["piano song", "city"]


def test_names_alone_are_zero_shot(encoder, tmp_path: Path):
    names = ["paris", "bread_and_butter", "piano song"]
    predictor = Predictor.fit([], [], encoder=encoder, use_names=True, classes=names)
    asked = ["a night in paris", "bread with butter", "a song for piano"]
    assert predictor.predict(asked).labels == names
    assert predictor.head.chosen.accuracy is None and predictor.rejection is None
    save_predictor(predictor, tmp_path / "names.kshot")
    again = load_predictor(tmp_path / "names.kshot", encoder=words())
    assert again.predict(asked).labels == names


def test_a_class_without_examples_needs_a_name(encoder):
    with pytest.raises(ValueError, match="use_names=True"):
        Predictor.fit(TEXTS, LABELS, encoder=encoder, classes=["sport"])


def test_a_file_brings_back_the_same_predictor(encoder, tmp_path: Path):
    predictor = Predictor.fit(
        TEXTS, LABELS, encoder=encoder, use_names=True, sources=[f"line {k}" for k in range(12)]
    )
    save_predictor(predictor, str(tmp_path / "mine.kshot"))
    again = load_predictor(str(tmp_path / "mine.kshot"), encoder=words())
    asked = ["paris song", "rice", "quark"]
    for one, other in zip(predictor.predict(asked), again.predict(asked), strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.support.sources == predictor.support.sources
    assert again.head.candidates == predictor.head.candidates
    assert (again.rejection, again.asked) == (predictor.rejection, "auto")
    added = again.add(["a violin"], ["music"])
    assert added.support.embeddings.shape[0] == len(predictor.support.embeddings) + 1


@pytest.mark.parametrize(("head", "chosen"), [("adapter", "adapter"), ("auto", "logistic")])
def test_a_file_holds_what_was_learned_from_other_classes(head, chosen, tmp_path: Path):
    random = np.random.default_rng(1)
    others = np.repeat(random.normal(size=(8, 12)), 4, axis=0) + 0.3 * random.normal(size=(32, 12))
    X, y = points()
    adapter = train_adapter(others, np.arange(32) // 4)
    predictor = Predictor.fit(X, y, head=head, adapter=adapter)
    save_predictor(predictor, tmp_path / "a.kshot")
    back = load_predictor(tmp_path / "a.kshot")
    assert back.head.chosen.name == chosen
    np.testing.assert_array_equal(back.predict(X).probabilities, predictor.predict(X).probabilities)
    more, whole = back.add(X[:2] + 5, ["new"] * 2), [*y, "new", "new"]
    again = Predictor.fit(np.concatenate([X, X[:2] + 5]), whole, head=head, adapter=adapter)
    np.testing.assert_array_equal(more.predict(X).probabilities, again.predict(X).probabilities)


def tunable(seed: int = 0) -> TextEncoder:
    """Words, then two layers: the second one is the last block."""
    torch.manual_seed(seed)

    class Layers(Words):
        def __init__(self) -> None:
            super().__init__(seed)
            self.layers = nn.Sequential(nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 16))

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.layers(super().forward(input_ids, attention_mask))

    return TextEncoder(Layers(), tokens, max_length=32, device="cpu", spec="python:mine:words")


def test_a_last_block_is_tuned_and_kept_in_the_file(tmp_path: Path):
    encoder = tunable()
    predictor = Predictor.fit(TEXTS, LABELS, encoder=encoder, head="last_block")
    asked = ["paris by night", "butter on bread", "a piano"]
    found = predictor.predict(asked)
    assert found.labels == ["city", "food", "music"]
    frozen = Predictor.fit(TEXTS, LABELS, encoder=encoder, head="logistic")
    assert np.abs(found.probabilities - frozen.predict(asked).probabilities).max() > 1e-3
    np.testing.assert_array_equal(found.familiarity, frozen.predict(asked).familiarity)
    parts = predictor.predict(asked, batch_size=1)
    np.testing.assert_allclose(parts.probabilities, found.probabilities, atol=1e-5)
    assert predictor.predict([]).labels == []

    save_predictor(predictor, tmp_path / "mine.kshot")
    back = load_predictor(tmp_path / "mine.kshot", encoder=encoder)
    np.testing.assert_allclose(back.predict(asked).probabilities, found.probabilities, atol=1e-7)
    assert back.head.chosen == predictor.head.chosen
    looked_at = load_predictor(tmp_path / "mine.kshot", without_encoder=True)
    assert looked_at.head.chosen == predictor.head.chosen
    with pytest.raises(ValueError, match="fit it again to all of them"):
        back.add(["paris"], ["city"])


@pytest.mark.parametrize(
    ("options", "message"),
    [({}, "tunes an encoder"), ({"encoder": tunable(), "use_names": True}, "not from names")],
)
def test_what_a_last_block_needs_is_said(options, message):
    X, y = points() if not options else (TEXTS, LABELS)
    with pytest.raises(ValueError, match=message):
        Predictor.fit(X, y, head="last_block", **options)


def test_an_encoder_without_blocks_has_none_to_tune(encoder):
    with pytest.raises(ValueError, match="repeats no block"):
        Predictor.fit(TEXTS, LABELS, encoder=encoder, head="last_block")


def test_a_file_does_not_decide_what_code_runs(encoder, tmp_path: Path):
    save_predictor(Predictor.fit(TEXTS, LABELS, encoder=encoder), tmp_path / "mine.kshot")
    with pytest.raises(ValueError, match=r"python:mine:words.*give the encoder yourself"):
        load_predictor(tmp_path / "mine.kshot")
    assert load_predictor(tmp_path / "mine.kshot", without_encoder=True).encoder is None


def test_another_encoder_is_refused(encoder, tmp_path: Path):
    save_predictor(Predictor.fit(TEXTS, LABELS, encoder=encoder), tmp_path / "mine.kshot")
    with pytest.raises(ValueError, match="made with another encoder"):
        load_predictor(tmp_path / "mine.kshot", encoder=words(seed=1))


def test_other_files_are_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="kshot fit"):
        load_predictor(tmp_path / "none.kshot")
    (tmp_path / "text.kshot").write_text("hello")
    with pytest.raises(ValueError, match="not a predictor"):
        load_predictor(tmp_path / "text.kshot")
    save_file({"x": np.zeros(3)}, tmp_path / "tensors.kshot")
    with pytest.raises(ValueError, match="no predictor"):
        load_predictor(tmp_path / "tensors.kshot")
    later = {"kshot": json.dumps({"format": 99})}
    save_file({"x": np.zeros(3)}, tmp_path / "later.kshot", later)
    with pytest.raises(ValueError, match="later version"):
        load_predictor(tmp_path / "later.kshot")


def test_a_head_of_ones_own_has_no_name_to_save():
    X, y = points()
    predictor = Predictor.fit(X, y, head=ProtoNet(nn.Linear(12, 4)))
    with pytest.raises(ValueError, match="cannot be saved"):
        save_predictor(predictor, Path("never.kshot"))


@pytest.mark.parametrize(
    ("X", "y", "options", "message"),
    [
        ([[0.0, 1.0]], ["a", "b"], {}, "1 examples and 2 labels"),
        ([[0.0, 1.0], [1.0, 0.0]], ["a", "a"], {}, "at least 2 classes"),
        ([[0.0, 1.0], [1.0, np.nan]], ["a", "b"], {}, "finite"),
        (["text", "more"], ["a", "b"], {}, "names of files or sentences, such as 'text'"),
        ([[0.0, 1.0], [1.0, 0.0]], ["a", "b"], {"use_names": True}, "understands text"),
        ([[0.0, 1.0], [1.0, 0.0]], ["a", "b"], {"head": "tree"}, "Unknown head"),
    ],
)
def test_bad_input_is_explained(X, y, options, message):
    with pytest.raises(ValueError, match=message):
        Predictor.fit(X, y, **options)


@pytest.mark.usefixtures("unchecked_shapes")
def test_one_input_is_no_list_of_inputs(encoder):
    predictor = Predictor.fit(TEXTS, LABELS, encoder=encoder)
    classifier = FewShotClassifier(encoder=encoder, head="centroid").fit(TEXTS, LABELS)
    for alone in ("paris by night", Path("paris.png")):
        for read in (predictor.predict, classifier.predict, encoder.encode):
            with pytest.raises(ValueError, match="Expected a list of inputs, got one"):
                read(alone)
    with pytest.raises(ValueError, match="Expected a list of inputs, got one str"):
        Predictor.fit("text", list("abcd"), encoder=encoder)


def test_each_example_has_a_source_or_none_has():
    X, y = points()
    with pytest.raises(ValueError, match="20 examples and 20 labels and 1 sources"):
        Predictor.fit(X, y, sources=["one"])


def test_inputs_of_another_size_are_refused():
    X, y = points()
    predictor = Predictor.fit(X, y)
    with pytest.raises(ValueError, match="12 numbers, not 5"):
        predictor.predict(np.zeros((2, 5)))
    with pytest.raises(ValueError, match="5 numbers each, the others 12"):
        predictor.add(np.zeros((2, 5)), ["a", "b"])


def test_the_estimator_wears_it(encoder):
    estimator = clone(FewShotClassifier(encoder=encoder, head="centroid")).fit(TEXTS, LABELS)
    predictor = Predictor.fit(TEXTS, LABELS, encoder=encoder, head="centroid")
    asked = ["paris song", "rice", "quark"]
    np.testing.assert_array_equal(
        estimator.predict_proba(asked), predictor.predict(asked).probabilities
    )
    assert estimator.predict(asked).tolist() == predictor.predict(asked).labels
    assert estimator.known(asked).tolist() == predictor.predict(asked).known.tolist()


def test_the_estimator_takes_embeddings_and_a_head():
    X, y = points()
    estimator = FewShotClassifier(head="auto").fit(X, y)
    assert estimator.score(X, y) == 1 and estimator.n_features_in_ == 12
    assert not hasattr(estimator.set_params(head=None).fit(X, y), "predictor_")


def test_a_learner_and_a_head_are_one_too_many():
    X, y = points()
    with pytest.raises(ValueError, match="not both"):
        FewShotClassifier(ProtoNet(nn.Identity()), head="auto").fit(X, y)
