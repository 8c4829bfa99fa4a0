"""`kshot predict`: name pictures or sentences, by what was fitted or with a trained run."""

import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from kshot.cli.own_examples import EncoderFlags, load_with_encoder
from kshot.cli.tables import print_table
from kshot.data.layout import PICTURE_SUFFIXES
from kshot.data.pictures import PictureError, prepare_picture
from kshot.data.sources.image_folder import read_support
from kshot.encoders import encode_cached
from kshot.estimator import FewShotClassifier
from kshot.predictor import Predictor
from kshot.training.run import Run, load_run

__all__ = ["main"]


@dataclass(frozen=True)
class Predict:
    """Name pictures or sentences.

    kshot predict FILE.kshot INPUT... names them by what `kshot fit` learned; "or none of these"
    stands with those that are near to none of its classes. kshot predict RUN --support FOLDER
    --query PICTURE... names pictures with a trained run, from a few examples of each class.

    Attributes:
        source: File that `kshot fit` made, or folder of a trained run.
        inputs: Pictures (their files, or folders of them) or sentences to name, with a file of
            `kshot fit`.
        stdin: Read inputs from standard input, one a line, and answer each line at once.
        encoder: The encoder that the file was made with; only needed where the file may not say
            (python:MODULE:FUNCTION).
        support: With a run: folder (or zip) with one folder of example pictures for each class.
        query: With a run: pictures to name (their files, or folders of them).
        top: How many classes to show for each input.
        json: Print JSON instead of text; with --stdin, an object a line.
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.kshot|RUN")]
    inputs: tyro.conf.Positional[tuple[str, ...]] = ()
    stdin: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    encoder: str | None = None
    support: Path | None = None
    query: tuple[str, ...] = ()
    top: int = 1
    json: bool = False
    place: Annotated[EncoderFlags, tyro.conf.arg(name="")] = field(default_factory=EncoderFlags)


def main(arguments: list[str]) -> int:
    """Parse the arguments, name the inputs, print; the exit status."""
    flags = tyro.cli(Predict, args=arguments, prog="kshot predict")
    if flags.top < 1:
        raise ValueError(f"--top must be 1 or more, not {flags.top}.")
    is_run = not flags.source.is_file() and flags.source.suffix != ".kshot"
    return _with_run(flags) if is_run else _with_predictor(flags)


def _with_predictor(flags: Predict) -> int:
    """Name inputs by what was fitted; 1 when some could not be read."""
    command = f"{shlex.join(['kshot', 'predict', str(flags.source)])} INPUT..."
    if flags.support is not None or flags.query:
        raise ValueError(
            f"--support and --query go with the folder of a run; {flags.source} has its examples: "
            f"{command}"
        )
    if bool(flags.inputs) == flags.stdin:
        raise ValueError(
            f"What is to be named? Give inputs, {command}, or --stdin to read them from standard "
            "input, one a line; not both."
        )
    predictor = load_with_encoder(flags.source, flags.encoder, flags.place)
    if flags.stdin:
        return _answer_lines(predictor, flags)
    inputs = flags.inputs if _key(predictor) == "sentence" else _pictures_in(flags.inputs)
    answers = list(_answers(predictor, inputs, flags.top, cached=True))
    if flags.json:
        print(json.dumps(answers, indent=2, ensure_ascii=False))
    else:
        # As for lines of standard input, the answer first: sentences are of any length.
        width = max(len(_text(answer)) for answer in answers)
        for answer in answers:
            print(f"{_text(answer):<{width}}  {answer[_key(predictor)]}")
    return _told_failures(answers)


def _pictures_in(inputs: Sequence[str]) -> list[str]:
    """The pictures themselves, in place of the folders they are in, at any depth."""
    found: list[str] = []
    for item in inputs:
        if not Path(item).is_dir():
            found.append(item)
            continue
        inside = [path for path in Path(item).rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES]
        if not inside:
            raise ValueError(
                f"The folder {item} has no pictures ({', '.join(PICTURE_SUFFIXES)}) inside."
            )
        found += map(str, sorted(inside))
    return found


def _answer_lines(predictor: Predictor, flags: Predict) -> int:
    """Answer each line of standard input with a line, before the next one is read."""
    failed = False
    for number, line in enumerate(sys.stdin, start=1):
        item = line.rstrip("\r\n")
        # Not kept in the cache: a stream may be long, and is of others' words.
        [answer] = _answers(predictor, [item], flags.top, cached=False)
        if "error" in answer:
            failed = True
            print(f"kshot predict: line {number}: {answer['error']}", file=sys.stderr, flush=True)
        said = json.dumps(answer, ensure_ascii=False) if flags.json else f"{_text(answer)}\t{item}"
        print(said, flush=True)
    return 1 if failed else 0


def _answers(
    predictor: Predictor, inputs: Sequence[str], top: int, *, cached: bool
) -> Iterator[dict[str, Any]]:
    """What is said of each input, as JSON can hold it."""
    encoder = predictor.encoder
    assert encoder is not None
    failures: dict[int, str] = {}
    encode = encode_cached if cached else type(encoder).encode
    rows = encode(encoder, inputs, failures=failures)
    good = [place for place in range(len(inputs)) if place not in failures]
    found = predictor.predict_embedded(rows[good], [inputs[place] for place in good])
    row_of = {place: row for row, place in enumerate(good)}
    for place, item in enumerate(inputs):
        if place in failures:
            yield {_key(predictor): item, "error": failures[place]}
            continue
        row = row_of[place]
        yield {
            _key(predictor): item,
            "known": bool(found.known[row]),
            "classes": _best(predictor.classes, found.probabilities[row], top),
        }


def _best(
    classes: Sequence[Any], probabilities: np.ndarray, top: int
) -> list[dict[str, str | float]]:
    """The most probable classes."""
    return [
        {"class": str(classes[column]), "probability": float(probabilities[column])}
        for column in np.argsort(-probabilities, kind="stable")[:top]
    ]


def _text(answer: dict[str, Any]) -> str:
    """An answer for people."""
    if "error" in answer:
        return "not read"
    best = ", ".join(f"{c['class']} ({100 * c['probability']:.0f} %)" for c in answer["classes"])
    return best if answer.get("known", True) else f"{best}, or none of these"


def _key(predictor: Predictor) -> str:
    assert predictor.encoder is not None
    return "picture" if predictor.encoder.kind == "pictures" else "sentence"


def _with_run(flags: Predict) -> int:
    """Name pictures with a trained run, from a folder of examples."""
    if flags.inputs or flags.stdin or flags.encoder is not None:
        raise ValueError(
            f"{flags.source} is no file that kshot fit made, but the folder of a run: name its "
            "examples and pictures, --support FOLDER --query PICTURE..."
        )
    if flags.place.weights is not None or flags.place.weights_sha256 is not None:
        raise ValueError("A run has its weights: --weights and --weights-sha256 do not go with it.")
    if flags.support is None or not flags.query:
        raise ValueError(
            "A run needs examples of each class and pictures to name: --support FOLDER --query "
            "PICTURE..."
        )
    run = load_run(flags.source, flags.place.device)
    if not run.preparation:
        raise ValueError(
            f"The run {flags.source} was not trained on pictures, so it cannot name any."
        )
    preparation = dict(run.preparation)
    pictures, labels = read_support(flags.support, preparation)
    classifier = _fitted(run, pictures, labels)
    answers: list[dict[str, Any]] = [{"picture": path} for path in _pictures_in(flags.query)]
    queries = []
    for answer in answers:
        try:
            queries.append(prepare_picture(Path(answer["picture"]), **preparation))
        except (PictureError, OSError) as error:
            answer["error"] = str(error)
    if queries:
        read = [answer for answer in answers if "error" not in answer]
        for answer, row in zip(read, classifier.predict_proba(np.stack(queries)), strict=True):
            answer["classes"] = _best(classifier.classes_.tolist(), row, flags.top)
    if flags.json:
        print(json.dumps(answers, indent=2, ensure_ascii=False))
    else:
        rows = [[answer["picture"], _text(answer)] for answer in answers]
        title = f"{len(set(labels))} classes from {len(labels)} examples"
        print_table(title, ["picture", "class"], rows)
    return _told_failures(answers)


def _fitted(run: Run, pictures: np.ndarray, labels: Sequence[str]) -> FewShotClassifier:
    """The run's learner, shown the examples."""
    try:
        return FewShotClassifier(run.learner).fit(pictures, labels)
    except ValueError as error:
        way, most = len(set(labels)), run.tasks.way
        if way <= most:
            raise
        raise ValueError(
            f"There are examples of {way} classes, and this run's {run.config.learner.name} tells "
            f"at most {most} apart: leave classes out, or train one with --episodes.way {way}."
        ) from error


def _told_failures(answers: Sequence[dict[str, Any]]) -> int:
    """Say what could not be read; the exit status, 1 when there is any."""
    failed = [answer["error"] for answer in answers if "error" in answer]
    for error in failed:
        print(f"kshot predict: {error}", file=sys.stderr)
    return 1 if failed else 0
