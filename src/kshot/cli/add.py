"""`kshot add`: give a predictor new classes, or more examples of those it has."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from kshot.cli.own_examples import (
    EncoderFlags,
    check_new_file,
    describe,
    embed_examples,
    load_with_encoder,
    print_description,
    read_source,
    tell,
)
from kshot.predictor import Support
from kshot.predictor_file import save_predictor

__all__ = ["main"]


@dataclass(frozen=True)
class Add:
    """Give a predictor new classes, or more examples of those it has.

    The result is that of a fit to all examples at once; those it has are not read again.

    Attributes:
        file: The predictor, as `kshot fit` made it.
        source: Pictures of one class in a folder that is named after it, class folders of pictures
            (a folder or zip), or a table of sentences (.csv, .tsv, .jsonl).
        label: Class of the pictures, when they are of one class; by default their folder's name. Of
            a table, the column of classes, by default "label".
        text: Column of the sentences in a table, by default "text".
        out: Write another file, NAME.kshot, instead of changing this one.
        encoder: The encoder that the file was made with; only needed where the file may not say
            (python:MODULE:FUNCTION).
        json: Print JSON instead of sentences.
    """

    file: tyro.conf.Positional[Path]
    source: tyro.conf.Positional[Path]
    label: str | None = None
    text: str | None = None
    out: Path | None = None
    encoder: str | None = None
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    place: Annotated[EncoderFlags, tyro.conf.arg(name="")] = field(default_factory=EncoderFlags)


def main(arguments: list[str]) -> int:
    """Parse the arguments, learn, write the file, print; the exit status."""
    flags = tyro.cli(Add, args=arguments, prog="kshot add")
    if flags.out is not None:
        check_new_file(flags.out)
    before = load_with_encoder(flags.file, flags.encoder, flags.place)
    assert before.encoder is not None
    examples = read_source(flags.source, flags.text, flags.label, one_class=True)
    examples, rows = embed_examples(before.encoder, examples, before)
    tell(examples.notes)
    if not examples.labels:
        raise ValueError(
            f"{flags.source} has no example that can be read and is not in {flags.file} already: "
            "nothing is changed."
        )
    # Labels of a predictor made in Python may be numbers.
    class_of = {str(label): label for label in before.classes}
    labels = [class_of.get(label, label) for label in examples.labels]
    predictor = before.learn(Support.of(rows, labels, examples.sources))
    out = flags.file if flags.out is None else flags.out
    save_predictor(predictor, out)
    added = dict(sorted(Counter(examples.labels).items()))
    if flags.json:
        described = {
            "file": str(out),
            "added": added,
            **describe(predictor),
            "notes": examples.notes,
        }
        print(json.dumps(described, indent=2, ensure_ascii=False))
        return 0
    for label, count in added.items():
        new = "" if label in class_of else " (new)"
        print(f"Added {count} example{'s' * (count != 1)} of {label!r}{new}.")
    print()
    print_description(predictor)
    print(f"\nWritten to {out}.")
    return 0
