"""`kshot fit`: learn to name pictures or sentences from a few examples of each class."""

import json
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from kshot.cli.own_examples import (
    EncoderFlags,
    check_new_file,
    describe,
    embed_examples,
    print_description,
    read_source,
    tell,
)
from kshot.data.layout import first_few
from kshot.encoders import Encoder
from kshot.heads import train_adapter
from kshot.heads.choice import check_head
from kshot.learners.metric.prototypical import ProtoNet
from kshot.predictor import Predictor, Support
from kshot.predictor_file import save_predictor

__all__ = ["DEFAULT_ENCODERS", "main"]

DEFAULT_ENCODERS = {
    "pictures": "timm:tf_efficientnet_lite0.in1k",
    "text": "hf:sentence-transformers/all-MiniLM-L6-v2",
}
"""What reads examples of each kind, unless another is asked for; each is downloaded once."""


@dataclass(frozen=True)
class Fit:
    """Learn to name pictures or sentences from a few examples of each class.

    What cannot be read is left out and told. Nothing is trained that takes long: a pretrained
    encoder reads the examples, and a head on its embeddings learns from them.

    Attributes:
        source: Pictures: a folder or zip with one folder for each class. Sentences: a table (.csv,
            .tsv, .jsonl) with a row for each example.
        out: File to make, NAME.kshot.
        force: Replace the file if there is one already, with all it has learned.
        encoder: What reads the examples, KIND:NAME, as timm:resnet50, open_clip:ViT-B-32/openai,
            hf:MODEL or python:MODULE:FUNCTION. By default timm:tf_efficientnet_lite0.in1k for
            pictures, hf:sentence-transformers/all-MiniLM-L6-v2 for sentences; weights are
            downloaded once.
        head: What learns from the embeddings: centroid, cosine, ridge, logistic, adapter, or
            "auto", which tries all and chooses by examples held out; or last_block, which also
            tunes the end of the encoder: minutes instead of seconds, for examples unlike those that
            the encoder was trained on.
        others: Other labelled classes, as SOURCE holds them: an adapter first learns from these how
            classes differ, and is one more head. Worth it with many classes and few examples.
        text: Column of the sentences in a table, by default "text".
        label: Column of their classes, by default "label".
        false_accept: Share of inputs of no known class that may pass for known ones.
        names: Let the name of each class be one more example of it; for encoders that read text.
        json: Print JSON instead of sentences.
    """

    source: tyro.conf.Positional[Path]
    out: Path
    force: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    encoder: str | None = None
    head: str = "auto"
    others: Path | None = None
    text: str | None = None
    label: str | None = None
    false_accept: float = 0.05
    names: bool = False
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    place: Annotated[EncoderFlags, tyro.conf.arg(name="")] = field(default_factory=EncoderFlags)


def main(arguments: list[str]) -> int:
    """Parse the arguments, learn, write the file, print; the exit status."""
    flags = tyro.cli(Fit, args=arguments, prog="kshot fit")
    check_new_file(flags.out, force=flags.force)
    check_head(flags.head, with_adapter=flags.others is not None, with_names=flags.names)
    examples = read_source(flags.source, flags.text, flags.label)
    encoder = flags.place.load(flags.encoder or DEFAULT_ENCODERS[examples.kind])
    examples, rows = embed_examples(encoder, examples)
    tell(examples.notes)
    classes = sorted(set(examples.labels))
    if len(classes) < 2:
        raise ValueError(
            f"{flags.source} has examples of {len(classes)} class{'es' * (not classes)} that can "
            f"be read ({first_few(classes) or 'none'}), and there must be two or more. Add a "
            "class, or mend what is noted above."
        )
    adapter = None if flags.others is None else _adapter(flags, encoder, set(classes))
    support = Support.of(rows, examples.labels, examples.sources)
    if flags.names:
        support = support.with_names(encoder)
    predictor = Predictor.of(
        encoder, support, flags.head, flags.false_accept, adapter, examples.inputs
    )
    save_predictor(predictor, flags.out)
    if flags.json:
        described = {
            "file": str(flags.out),
            "encoder": encoder.spec,
            **describe(predictor),
            "notes": examples.notes,
        }
        print(json.dumps(described, indent=2, ensure_ascii=False))
        return 0
    print_description(predictor)
    what = "PICTURE..." if encoder.kind == "pictures" else '"A SENTENCE"...'
    predict = shlex.join(["kshot", "predict", str(flags.out)])
    spec = encoder.spec or ""
    own = f" --encoder {shlex.quote(spec)}" if spec.startswith("python:") else ""
    print(f"\nWritten to {flags.out}. Next: {predict} {what}{own}")
    return 0


def _adapter(flags: Fit, encoder: Encoder, known: set[str]) -> ProtoNet:
    """What is learned from the other classes; those to be told apart are not among them."""
    assert flags.others is not None
    others, rows = embed_examples(encoder, read_source(flags.others, flags.text, flags.label))
    tell(others.notes)
    if shared := known & set(others.labels):
        raise ValueError(
            f"{flags.others} has examples of {first_few(sorted(shared))}, as {flags.source} has. "
            "Others are other classes: what is learned from a class cannot be judged on it."
        )
    return train_adapter(rows, others.labels, quiet=not sys.stderr.isatty())
