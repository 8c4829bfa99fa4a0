"""`kshot demo`: a page to draw on, where learners learn from a few drawings at once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from kshot.cli.serving import ServerFlags, need_server

__all__ = ["main"]


@dataclass(frozen=True)
class Demo:
    """Serve a page: name classes, draw a few examples of each, then draw and watch it be named.

    Attributes:
        runs: Folders of runs that were trained on pictures (with --sinusoid: on sinusoid), to
            choose among on the page; none takes the two that come with kshot.
        sinusoid: Instead, a page of waves: click points and watch learners fit them step by step.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    sinusoid: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    server: Annotated[ServerFlags, tyro.conf.arg(name="")] = field(default_factory=ServerFlags)


def main(arguments: list[str]) -> int:
    """Parse the arguments and serve until interrupted; the exit status."""
    flags = tyro.cli(Demo, args=arguments, prog="kshot demo")
    need_server()
    from kshot.demo.api import Api
    from kshot.demo.learners import load_learners
    from kshot.demo.server import build_app, serve
    from kshot.demo.waves import load_waves

    limits, place = flags.server.limits(), (flags.server.host, flags.server.port)
    if flags.sinusoid:
        serve(build_app(Api(waves=load_waves(flags.runs), limits=limits), "waves"), *place)
        return 0
    learners = load_learners(flags.runs, flags.server.device)

    def rehearse() -> None:
        # What PyTorch loads at a learner's first steps is not to keep the first visitor waiting.
        for learner in learners:
            learner.rehearse()

    serve(build_app(Api(learners=learners, limits=limits), "draw"), *place, rehearse)
    return 0
