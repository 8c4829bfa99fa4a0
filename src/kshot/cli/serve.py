"""`kshot serve`: the demo's JSON API with a fixed support set, for other programs to call."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro

from kshot.cli.own_examples import EncoderFlags, load_with_encoder
from kshot.cli.serving import ServerFlags, need_server
from kshot.data.files import find_data, open_files
from kshot.data.layout import find_layout

if TYPE_CHECKING:
    from kshot.demo.learners import Adapted

__all__ = ["main"]


@dataclass(frozen=True)
class Weights:
    """Where the encoder of a file comes from.

    Attributes:
        encoder: The encoder that the file was made with; only needed where the file may not say
            (python:MODULE:FUNCTION).
        weights: File of the encoder's weights, instead of a download.
        weights_sha256: What the sha256 of that file must be.
    """

    encoder: str | None = None
    weights: Path | None = None
    weights_sha256: str | None = None


@dataclass(frozen=True)
class Serve:
    """Answer POST /api/predict with the classes of pictures or sentences.

    kshot serve FILE.kshot names them by what `kshot fit` learned; kshot serve RUN --support FOLDER
    with a trained run, from a few example pictures of each class. GET /api/openapi.json describes
    what can be asked.

    Attributes:
        source: File that `kshot fit` made, or folder of a trained run.
        support: With a run: folder (or zip) with one folder of example pictures for each class.
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.kshot|RUN")]
    support: Path | None = None
    place: Annotated[Weights, tyro.conf.arg(name="")] = field(default_factory=Weights)
    server: Annotated[ServerFlags, tyro.conf.arg(name="")] = field(default_factory=ServerFlags)


def main(arguments: list[str]) -> int:
    """Parse the arguments and serve until interrupted; the exit status."""
    flags = tyro.cli(Serve, args=arguments, prog="kshot serve")
    need_server()
    from kshot.demo.api import Api
    from kshot.demo.server import build_app, serve

    api = Api(fixed=_learned(flags), limits=flags.server.limits())
    assert api.fixed is not None
    print(f"{len(api.fixed.classes)} classes: {', '.join(api.fixed.classes)}")
    serve(build_app(api), flags.server.host, flags.server.port)
    return 0


def _learned(flags: Serve) -> "Adapted":
    """What names inputs: a predictor of a file, or a run's learner adapted to a folder."""
    from kshot.demo.learners import FittedPredictor

    if flags.source.is_file() or flags.source.suffix == ".kshot":
        if flags.support is not None:
            raise ValueError(
                f"--support goes with the folder of a run; {flags.source} has its examples."
            )
        place = EncoderFlags(flags.place.weights, flags.place.weights_sha256, flags.server.device)
        predictor = load_with_encoder(flags.source, flags.place.encoder, place)
        assert predictor.encoder is not None
        return FittedPredictor(predictor, predictor.encoder)
    if flags.place != Weights():
        raise ValueError("A run has its weights: --encoder and --weights do not go with it.")
    if flags.support is None:
        raise ValueError(
            "A run needs examples of each class: kshot serve "
            f"{shlex.quote(str(flags.source))} --support FOLDER."
        )
    return _adapted(flags.source, flags.support, flags.server.device)


def _adapted(run: Path, support: Path, device: str) -> "Adapted":
    """A run's learner, adapted to the pictures in the class folders of a folder or zip."""
    from kshot.demo.drawings import open_picture
    from kshot.demo.learners import PictureLearner

    learner = PictureLearner.load(run, run.name, device)
    pictures, columns = [], []
    with open_files(find_data(support)) as files:
        classes = find_layout(files).classes
        for column, members in enumerate(classes.values()):
            for name in members:
                image = open_picture(files.read(name), largest_side=20_000, name=name)
                pictures.append(learner.as_input(image, name))
                columns.append(column)
    if len(classes) < 2:
        raise ValueError(
            f"{support} has one class, {', '.join(classes)}: there must be two or more, each a "
            "folder of pictures."
        )
    if learner.most_classes is not None and len(classes) > learner.most_classes:
        raise ValueError(
            f"{support} has {len(classes)} classes, and {run} was trained for at most "
            f"{learner.most_classes}: leave some out, or take another run."
        )
    return learner.adapt(np.stack(pictures), columns, [*classes])
