"""The JSON API: adapt to a class set, predict, list learners; bounded, and nothing stored."""

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kshot.demo.learners import Adapted, Answer, Item, LearnedPictures, PictureLearner
from kshot.demo.limits import ApiError, Limits, RateLimiter
from kshot.demo.openapi import describe
from kshot.demo.requests import (
    check_fields,
    decode_file,
    decode_picture,
    read_body,
    read_json,
    read_list,
    read_points,
    read_text,
)
from kshot.demo.sessions import Sessions
from kshot.demo.waves import WaveLearner

__all__ = ["Api"]

Result = TypeVar("Result")

PICTURE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp")


class Api:
    """The routes under /api.

    Which there are depends on what is served: learners that visitors adapt, one adapted learner
    with a fixed support set, or learners of waves.

    Args:
        learners: that visitors may adapt.
        fixed: what was learned before, for everybody.
        waves: learners of waves.
        limits: bounds of everything.
        workers: requests that compute at once, each on one thread.
    """

    def __init__(
        self,
        *,
        learners: Sequence[PictureLearner] = (),
        fixed: Adapted | None = None,
        waves: Sequence[WaveLearner] = (),
        limits: Limits | None = None,
        workers: int = 2,
    ) -> None:
        self.learners = {learner.name: learner for learner in learners}
        self.fixed = fixed
        self.waves = tuple(waves)
        self.limits = limits or Limits()
        self.sessions = Sessions(self.limits)
        self._rate = RateLimiter(self.limits.rate, self.limits.burst)
        self._workers = anyio.CapacityLimiter(workers)
        self._waiting = 0

    @property
    def routes(self) -> list[Route]:
        """What there is, for Starlette."""
        routes = [Route("/api/openapi.json", self._bounded(self.openapi), methods=["GET"])]
        if self.learners:
            routes += [
                Route("/api/learners", self._bounded(self.list_learners), methods=["GET"]),
                Route("/api/adapt", self._bounded(self.adapt), methods=["POST"]),
                Route("/api/predict", self._bounded(self.predict), methods=["POST"]),
            ]
        if self.fixed is not None:
            routes += [
                Route("/api/classes", self._bounded(self.list_classes), methods=["GET"]),
                Route("/api/predict", self._bounded(self.predict_fixed), methods=["POST"]),
            ]
        if self.waves:
            routes += [Route("/api/waves", self._bounded(self.follow_waves), methods=["POST"])]
        return routes

    async def openapi(self, request: Request) -> Response:
        """The description of this API, OpenAPI 3.1."""
        reads = None if self.fixed is None else self.fixed.reads
        return JSONResponse(describe(self.limits, tuple(self.learners), reads, bool(self.waves)))

    async def list_learners(self, request: Request) -> Response:
        """The learners that can adapt, and the bounds of a class set."""
        return JSONResponse(
            {
                "learners": [
                    {
                        "name": one.name,
                        "summary": one.summary,
                        "trained_on": one.trained_on,
                        "most_classes": min(
                            one.most_classes or self.limits.classes, self.limits.classes
                        ),
                        "batch_norm": one.learner.batch_norm,
                    }
                    for one in self.learners.values()
                ],
                "limits": {
                    "classes": self.limits.classes,
                    "examples": self.limits.examples,
                    "queries": self.limits.queries,
                    "name_length": self.limits.name_length,
                    "picture_bytes": self.limits.picture_bytes,
                    "picture_side": self.limits.picture_side,
                },
            }
        )

    async def list_classes(self, request: Request) -> Response:
        """The classes that are told apart, and what is read."""
        assert self.fixed is not None
        return JSONResponse({"classes": list(self.fixed.classes), "reads": self.fixed.reads})

    async def adapt(self, request: Request) -> Response:
        """Learn a class set; the answer's session stands for it."""
        content = await read_json(request, self.limits)
        check_fields(content, ("classes",), ("learner",), "the request")
        learner = self._learner(content.get("learner"))
        adapted, seconds = await self._compute(
            lambda: _timed(lambda: self._adapted(learner, content["classes"]))
        )
        assert adapted.map is not None
        columns = [c for c, one in enumerate(content["classes"]) for _ in one["pictures"]]
        return JSONResponse(
            {
                "session": self.sessions.add(adapted),
                "learner": learner.name,
                "classes": list(adapted.classes),
                "expires_in": self.limits.session_seconds,
                "seconds": seconds,
                "map": {
                    "of": adapted.map.of,
                    "support": [
                        {"class": adapted.classes[column], "x": x, "y": y}
                        for column, (x, y) in zip(columns, adapted.map.support, strict=True)
                    ],
                    "prototypes": [
                        {"class": name, "x": x, "y": y}
                        for name, (x, y) in zip(
                            adapted.classes, adapted.map.prototypes, strict=True
                        )
                    ],
                },
            }
        )

    async def predict(self, request: Request) -> Response:
        """Name pictures by what was learned in a session."""
        content = await read_json(request, self.limits)
        check_fields(content, ("session", "pictures"), (), "the request")
        session = read_text(content["session"], "'session'", 100)
        adapted = self.sessions.get(session)
        return await self._named(adapted, lambda: self._pictures(content["pictures"]))

    async def predict_fixed(self, request: Request) -> Response:
        """Name pictures, posted as a file or in JSON, or texts, by the fixed support set."""
        assert self.fixed is not None
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if self.fixed.reads == "pictures" and kind in PICTURE_TYPES:
            body = await read_body(request, self.limits)
            return await self._named(
                self.fixed, lambda: [decode_file(body, "the picture", self.limits)]
            )
        content = await read_json(request, self.limits)
        field = "pictures" if self.fixed.reads == "pictures" else "texts"
        check_fields(content, (field,), (), "the request")
        read = self._pictures if field == "pictures" else self._texts
        return await self._named(self.fixed, lambda: read(content[field]))

    async def follow_waves(self, request: Request) -> Response:
        """How the curve of every learner moves on some points."""
        content = await read_json(request, self.limits)
        check_fields(content, ("points",), (), "the request")
        points = read_points(content["points"], self.limits)
        followed = await self._compute(lambda: [one.follow(points) for one in self.waves])
        return JSONResponse({"learners": followed})

    def _learner(self, name: Any) -> PictureLearner:
        if name is None:
            return next(iter(self.learners.values()))
        if not isinstance(name, str) or name not in self.learners:
            raise ApiError(
                422,
                f"Expected 'learner' to be one of {', '.join(self.learners)}, and it is "
                f"{str(name)[:60]!r}.",
            )
        return self.learners[name]

    def _adapted(self, learner: PictureLearner, classes: Any) -> LearnedPictures:
        """Read a class set and learn it."""
        limits = self.limits
        names: list[str] = []
        pictures, columns = [], []
        for number, one in enumerate(read_list(classes, "'classes'", 2, limits.classes), 1):
            if not isinstance(one, dict):
                raise ApiError(
                    422, f'Expected class {number} as {{"name": ..., "pictures": [...]}}.'
                )
            check_fields(one, ("name", "pictures"), (), f"class {number}")
            name = read_text(one["name"], f"the name of class {number}", limits.name_length)
            if name in names:
                raise ApiError(
                    422, f"Expected every class to have a name of its own, and two are {name!r}."
                )
            names.append(name)
            where = f"'pictures' of class {name!r}"
            for place, text in enumerate(read_list(one["pictures"], where, 1, limits.examples), 1):
                which = f"picture {place} of class {name!r}"
                image = decode_picture(text, which, limits)
                pictures.append(_refused(partial(learner.as_input, image, which)))
                columns.append(number - 1)
        if learner.most_classes is not None and len(names) > learner.most_classes:
            raise ApiError(
                422,
                f"Expected at most {learner.most_classes} classes, as many as {learner.name} was "
                f"trained for, and there are {len(names)}: leave some out, or choose "
                "another learner.",
            )
        return _refused(lambda: learner.adapt(np.stack(pictures), columns, names))

    def _pictures(self, value: Any) -> list[Item]:
        found = read_list(value, "'pictures'", 1, self.limits.queries)
        return [
            decode_picture(text, f"picture {number}", self.limits)
            for number, text in enumerate(found, 1)
        ]

    def _texts(self, value: Any) -> list[Item]:
        found = read_list(value, "'texts'", 1, self.limits.queries)
        return [
            read_text(text, f"text {number}", self.limits.text_length)
            for number, text in enumerate(found, 1)
        ]

    async def _named(self, adapted: Adapted, read: Callable[[], list[Item]]) -> Response:
        answers, seconds = await self._compute(
            lambda: _timed(lambda: _refused(lambda: adapted.predict(read())))
        )
        described = [_described(adapted.classes, answer) for answer in answers]
        return JSONResponse({"predictions": described, "seconds": seconds})

    async def _compute(self, function: Callable[[], Result]) -> Result:
        """The result of a function that takes its time, beside the loop that answers others."""
        if self._waiting >= self.limits.waiting:
            raise ApiError(
                429,
                f"Expected at most {self.limits.waiting} requests to wait, and there are as many: "
                "try again in a second.",
                retry_after=1,
            )
        self._waiting += 1
        try:
            return await anyio.to_thread.run_sync(function, limiter=self._workers)
        finally:
            self._waiting -= 1

    def _bounded(
        self, handle: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """A handler that is asked at a bounded rate and says in one sentence what is wrong."""

        async def answer(request: Request) -> Response:
            try:
                self._rate.take(request.client.host if request.client else "")
                return await handle(request)
            except ApiError as error:
                headers = {}
                if error.retry_after is not None:
                    headers["Retry-After"] = str(error.retry_after)
                return JSONResponse({"error": error.sentence}, error.status, headers=headers)

        return answer


def _described(classes: Sequence[str], answer: Answer) -> dict[str, Any]:
    """An answer as JSON: classes from the most to the least probable."""
    order = sorted(range(len(classes)), key=lambda column: -answer.probabilities[column])
    described: dict[str, Any] = {
        "class": classes[order[0]],
        "probabilities": [
            {"class": classes[column], "probability": answer.probabilities[column]}
            for column in order
        ],
    }
    if answer.known is not None:
        described["known"] = answer.known
    if answer.place is not None:
        described["map"] = {"x": answer.place[0], "y": answer.place[1]}
    return described


def _refused(function: Callable[[], Result]) -> Result:
    """The result; what the function refuses becomes the answer's sentence (422)."""
    try:
        return function()
    except ValueError as error:
        raise ApiError(422, str(error)) from error


def _timed(function: Callable[[], Result]) -> tuple[Result, float]:
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start
