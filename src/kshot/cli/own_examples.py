"""What the commands on one's own examples share: reading and embedding them, telling of a head."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kshot.data.files import find_data
from kshot.data.layout import first_few
from kshot.data.sources.own_examples import OwnExamples, read_picture_folder, read_table
from kshot.data.sources.tables import TABLE_SUFFIXES
from kshot.encoders import Encoder, encode_cached, load_encoder
from kshot.evaluation.intervals import Share
from kshot.heads import Candidate
from kshot.heads.inspection import repeated_rows
from kshot.predictor import Predictor
from kshot.predictor_file import load_predictor, stored_encoder

__all__ = [
    "Embedded",
    "EncoderFlags",
    "check_new_file",
    "class_counts",
    "describe",
    "embed_examples",
    "load_with_encoder",
    "print_description",
    "read_source",
    "tell",
]


@dataclass(frozen=True)
class EncoderFlags:
    """Where an encoder's weights come from, and where it computes.

    Attributes:
        weights: File of the encoder's weights, instead of a download.
        weights_sha256: What the sha256 of that file must be (of model.safetensors, when the encoder
            is a folder).
        device: Where to compute: "auto" takes a GPU when there is one.
    """

    weights: Path | None = None
    weights_sha256: str | None = None
    device: str = "auto"

    def load(self, spec: str) -> Encoder:
        """The encoder of a name, with these weights, on this device."""
        return load_encoder(
            spec, weights=self.weights, sha256=self.weights_sha256, device=self.device
        )


class Embedded(NamedTuple):
    """Examples that could be embedded, each content once in a class.

    Attributes:
        examples: what is left, with notes of what is not.
        rows: (n, dim) their embeddings.
    """

    examples: OwnExamples
    rows: np.ndarray


def check_new_file(path: Path, *, force: bool | None = None) -> None:
    """Refuse to write where something else would be lost, before any work is done.

    Args:
        path: the file to make.
        force: whether to replace a file; None where a command cannot be told to.
    """
    if path.suffix != ".kshot":
        raise ValueError(f"The file of a predictor is named NAME.kshot, not {path}.")
    if path.is_dir() or (path.exists() and not force):
        replace = "" if force is None else ", or replace the file with --force"
        raise ValueError(
            f"There is something at {path} already. Choose another name{replace}; kshot add gives "
            "a predictor more examples in place."
        )


def tell(notes: Sequence[str]) -> None:
    """Say notes to whoever watches: on standard error, so that pipes hold results alone."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def read_source(
    source: Path, text: str | None, label: str | None, *, one_class: bool = False
) -> OwnExamples:
    """The examples in a folder or zip of pictures, or in a table of sentences.

    Args:
        source: where; a table is known by its ending.
        text: column of the sentences; None takes "text".
        label: column of the classes, None takes "label"; or where `one_class`, what the pictures
            in the folder are, None takes the folder's name.
        one_class: whether a folder may be one class itself.
    """
    source = find_data(source)
    if source.suffix.lower() in TABLE_SUFFIXES and not source.is_dir():
        return read_table(source, text=text or "text", label=label or "label")
    if text is not None or (label is not None and not one_class):
        raise ValueError(
            f"--text and --label name columns of a table ({', '.join(TABLE_SUFFIXES)}), but "
            f"{source} is a folder or zip of pictures, whose folders name the classes: leave them "
            "out."
        )
    if source.is_file() and source.suffix.lower() != ".zip":
        raise ValueError(
            f"{source} is no source of examples: expected a folder or .zip with a folder of "
            f"pictures for each class, or a table of sentences ({', '.join(TABLE_SUFFIXES)})."
        )
    return read_picture_folder(source, label=label, one_class=one_class)


def embed_examples(
    encoder: Encoder, examples: OwnExamples, known: Predictor | None = None
) -> Embedded:
    """Embed examples; those that cannot be, and copies within a class, are left out with a note.

    Args:
        encoder: what embeds them.
        examples: what was read.
        known: a predictor whose examples are not learned again.
    """
    if examples.kind != encoder.kind:
        raise ValueError(
            f"The encoder {encoder.spec or type(encoder).__name__} reads {encoder.kind}, but the "
            f"examples are {examples.kind}. Choose another encoder with --encoder, or other "
            "examples."
        )
    failures: dict[int, str] = {}
    rows = encode_cached(encoder, examples.inputs, failures=failures)
    notes = [_reason(examples, place, failures[place]) for place in sorted(failures)]
    readable = examples.without(set(failures), notes)
    for label in sorted(set(examples.labels) - set(readable.labels)):
        readable.notes.append(f"No example of {label!r} is left: the class is left out.")
    rows = np.delete(rows, sorted(failures), axis=0)
    return _without_copies(readable, rows, known)


def load_with_encoder(path: Path, spec: str | None, flags: EncoderFlags) -> Predictor:
    """A predictor from a file, with its encoder: that of the name given, or in the file.

    Raises:
        ValueError: when it has none, or one that only the user may name; or another is given.
    """
    stored = stored_encoder(path)
    if stored is None:
        raise ValueError(
            f"{path} was made of embeddings, so no encoder reads pictures or sentences for it: use "
            "it in Python, with load_predictor."
        )
    if spec is None and (stored["spec"] is None or stored["spec"].startswith("python:")):
        return load_predictor(path)  # which refuses, and says why
    return load_predictor(path, encoder=flags.load(spec or stored["spec"]))


def class_counts(predictor: Predictor) -> dict[str, int]:
    """The number of examples of each class, names of classes not counted."""
    support = predictor.support
    counts = Counter(
        label
        for label, is_name in zip(support.labels, support.is_name.tolist(), strict=True)
        if not is_name
    )
    return {str(label): counts[label] for label in predictor.classes}


def describe(predictor: Predictor) -> dict[str, Any]:
    """What a predictor knows and how good it will be, as JSON can hold it."""
    head, rejection = predictor.head, predictor.rejection
    return {
        "classes": class_counts(predictor),
        "names_as_examples": bool(predictor.support.is_name.any()),
        "head": head.chosen.name,
        "reason": head.reason,
        "heads": [_describe_candidate(candidate) for candidate in head.candidates],
        "false_accept_asked": predictor.false_accept,
        "rejection": None if rejection is None else rejection._asdict(),
    }


def print_description(predictor: Predictor) -> None:
    """Print what a predictor knows and how good it will be, in sentences."""
    head, counts = predictor.head, class_counts(predictor)
    print(f"{len(counts)} classes, {sum(counts.values())} examples")
    width = max(map(len, counts))
    for label, count in counts.items():
        print(f"  {label:<{width}}  {count}")
    if predictor.support.is_name.any():
        print("  and the name of each class as one more example")
    print("\nHeads, judged by examples held out of these:")
    width = max(len(candidate.name) for candidate in head.candidates)
    for candidate in head.candidates:
        star = "*" if candidate is head.chosen or candidate == head.chosen else " "
        print(f"{star} {candidate.name:<{width}}  {_estimate(candidate)}")
    print(f"Chosen: {head.chosen.name}; {head.reason}.")
    for line in _cautions(predictor):
        print(line)
    print(_rejection_sentence(predictor))


def _without_copies(examples: OwnExamples, rows: np.ndarray, known: Predictor | None) -> Embedded:
    """Leave out what a class has already: learned twice, it would flatter the estimate."""
    labels, sources, every, num_old = examples.labels, examples.sources, rows, 0
    if known is not None:
        old = np.flatnonzero(~known.support.is_name)
        labels = [*(str(known.support.labels[place]) for place in old), *labels]
        sources = [*(known.support.sources[place] for place in old), *sources]
        every, num_old = np.concatenate([known.support.embeddings[old], rows]), len(old)
    copies: set[int] = set()
    contradictions = []
    for places in repeated_rows(every):
        first: dict[str, int] = {}
        for place in places:
            if first.setdefault(labels[place], place) != place and place >= num_old:
                copies.add(place - num_old)
        if len(first) > 1 and max(first.values()) >= num_old:
            named = " and ".join(
                f"{sources[place]!r} of {label!r}" for label, place in first.items()
            )
            contradictions.append(
                f"{named} are the same, so one of the labels is wrong: remove one of them. All "
                "are learned for now."
            )
    counts = Counter(examples.labels[place] for place in copies)
    notes = [
        f"Of {label!r}, {'1 example is a copy' if count == 1 else f'{count} examples are copies'} "
        "of another: each content is learned once."
        for label, count in sorted(counts.items())
    ]
    kept = examples.without(copies, [*notes, *contradictions])
    return Embedded(kept, np.delete(rows, sorted(copies), axis=0))


def _reason(examples: OwnExamples, place: int, message: str) -> str:
    """Why an example is left out; the content of an archive's picture has no name of its own."""
    source = examples.sources[place]
    message = message.replace("(bytes)", source)
    return f"{message if source in message else f'{source}: {message}'} It is left out."


def _describe_candidate(candidate: Candidate) -> dict[str, Any]:
    accuracy = candidate.accuracy
    return {
        "head": candidate.name,
        "accuracy": None if accuracy is None else accuracy.value,
        "interval95": None if accuracy is None else [accuracy.low, accuracy.high],
        "log_loss": candidate.log_loss,
    }


def _estimate(candidate: Candidate) -> str:
    if candidate.accuracy is None:
        return "no estimate"
    return f"{_share(candidate.accuracy)}, log-loss {candidate.log_loss:.3f}"


def _share(share: Share) -> str:
    """A rate for people, such as "83 % right (95 % interval 70 to 92 %)"."""
    return (
        f"{100 * share.value:.0f} % right (95 % interval {100 * share.low:.0f} to "
        f"{100 * share.high:.0f} %)"
    )


def _cautions(predictor: Predictor) -> list[str]:
    """What there are too few examples for."""
    counts, accuracy = class_counts(predictor), predictor.head.chosen.accuracy
    if accuracy is None:
        return [
            "Every class has a single example, so none can be held out, and nothing is known of "
            "how often this is right. Give two examples of a class or more."
        ]
    lines = []
    if accuracy.high - accuracy.low > 0.2:
        lines.append(
            "There are too few examples for a narrow estimate: each further one makes it surer."
        )
    if single := [label for label, count in counts.items() if count == 1]:
        lines.append(
            f"A single example: {first_few(single)}. It is learned, but cannot be held out, so "
            "the estimate does not tell of such a class."
        )
    return lines


def _rejection_sentence(predictor: Predictor) -> str:
    rejection = predictor.rejection
    if rejection is None:
        return (
            "Inputs of no known class are not recognized: that needs three classes or more to "
            "learn from."
        )
    rejected = rejection.false_reject
    known = "" if rejected is None else f", and {100 * rejected:.0f} % of known ones do not"
    remedy = ""
    if rejected is not None and rejected > 0.25:
        remedy = " A larger --false-accept in kshot fit lets more of both pass."
    return (
        f"Inputs of no known class: {100 * rejection.false_accept:.0f} % pass for known ones (at "
        f"most {100 * predictor.false_accept:.0f} % were asked){known}; estimated by leaving out "
        f"each class in turn.{remedy}"
    )
