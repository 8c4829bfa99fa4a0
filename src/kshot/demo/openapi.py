"""The API in words that programs read: OpenAPI 3.1, written by hand."""

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any, Literal

from kshot.demo.limits import Limits

__all__ = ["describe"]

Schema = dict[str, Any]

_REFUSALS = {
    "400": "The body is no JSON object.",
    "404": "The session is unknown or forgotten.",
    "413": "The request or a picture is too large.",
    "415": "The content is of another type.",
    "422": "A field is missing, unknown, or not as it has to be.",
    "429": "Too many requests at a time.",
}


def describe(
    limits: Limits,
    learners: Sequence[str],
    reads: Literal["pictures", "text"] | None,
    waves: bool,
) -> Schema:
    """The description of an API with these parts.

    Args:
        limits: bounds of what is sent.
        learners: names of learners that visitors may adapt; none where they may not.
        reads: what a fixed support set is of; None without one.
        waves: whether waves are followed.
    """
    paths: dict[str, Any] = {
        "/api/openapi.json": {
            "get": _operation("openapi", "This description.", None, {"type": "object"}, ())
        }
    }
    if learners:
        paths |= _of_learners(limits, learners)
    if reads is not None:
        paths |= _of_fixed(limits, reads)
    if waves:
        paths |= _of_waves(limits)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kshot",
            "version": metadata.version("kshot"),
            "summary": "Learn classes from a few examples, then name new ones.",
            "description": "What is said of one input never depends on the others in a request. "
            "Errors are 4xx with one sentence: what was expected, what came, how to mend it.",
        },
        "paths": paths,
        "components": {"schemas": {"Error": _object({"error": {"type": "string"}})}},
    }


def _of_learners(limits: Limits, learners: Sequence[str]) -> dict[str, Any]:
    count = {"type": "integer", "minimum": 1}
    name = _text(limits.name_length)
    one_class = _object(
        {"name": name, "pictures": _list(_picture(limits), 1, limits.examples)},
        "A class; no two have the same name.",
    )
    place = {"class": {"type": "string"}, "x": {"type": "number"}, "y": {"type": "number"}}
    plane = _object(
        {
            "of": {"enum": ["embeddings", "outputs"]},
            "support": _list(_object(place)),
            "prototypes": _list(_object(place)),
        },
        "The plane in which the examples differ most (principal components).",
    )
    learner = _object(
        {
            "name": {"type": "string"},
            "summary": {"type": "string"},
            "trained_on": {"type": "string"},
            "most_classes": count,
            "batch_norm": {"type": "string"},
        }
    )
    bounds = ("classes", "examples", "queries", "name_length", "picture_bytes", "picture_side")
    listed = _object({"learners": _list(learner), "limits": _object(dict.fromkeys(bounds, count))})
    request = {
        **_object({"classes": _list(one_class, 2, limits.classes)}),
        "description": "A class set, and who learns it: by default the first learner.",
    }
    request["properties"]["learner"] = {"enum": list(learners)}
    adapted = _object(
        {
            "session": {"type": "string"},
            "learner": {"type": "string"},
            "classes": _list({"type": "string"}),
            "expires_in": {"type": "number", "description": "seconds without use"},
            "seconds": {"type": "number"},
            "map": plane,
        }
    )
    asked = _object(
        {
            "session": {"type": "string", "minLength": 1, "maxLength": 100},
            "pictures": _list(_picture(limits), 1, limits.queries),
        }
    )
    return {
        "/api/learners": {
            "get": _operation("learners", "The learners, and the bounds.", None, listed, ())
        },
        "/api/adapt": {
            "post": _operation(
                "adapt",
                "Learn a class set once; the session stands for it afterwards.",
                _json(request),
                adapted,
                ("400", "413", "415", "422"),
            )
        },
        "/api/predict": {
            "post": _operation(
                "predict",
                "Name pictures by what was learned in a session.",
                _json(asked),
                _predictions(with_map=True),
                ("400", "404", "413", "415", "422"),
            )
        },
    }


def _of_fixed(limits: Limits, reads: Literal["pictures", "text"]) -> dict[str, Any]:
    if reads == "pictures":
        content = _json(_object({"pictures": _list(_picture(limits), 1, limits.queries)}))
        content |= {kind: {} for kind in ("image/png", "image/jpeg", "image/webp")}
    else:
        content = _json(_object({"texts": _list(_text(limits.text_length), 1, limits.queries)}))
    classes = _object(
        {"classes": _list({"type": "string"}), "reads": {"enum": ["pictures", "text"]}}
    )
    return {
        "/api/classes": {
            "get": _operation("classes", "The classes that are told apart.", None, classes, ())
        },
        "/api/predict": {
            "post": _operation(
                "predict",
                f"Name {reads}.",
                content,
                _predictions(with_map=False),
                ("400", "413", "415", "422"),
            )
        },
    }


def _of_waves(limits: Limits) -> dict[str, Any]:
    number = {"type": "number", "minimum": -10, "maximum": 10}
    points = _object({"points": _list(_list(number, 2, 2), 1, limits.points)})
    curve = {"type": ["array", "null"], "items": {"type": "number"}}
    step = _object({"y": curve, "error": {"type": ["number", "null"]}})
    learner = _object(
        {
            "name": {"type": "string"},
            "summary": {"type": "string"},
            "x": _list({"type": "number"}),
            "steps": _list(step),
        }
    )
    return {
        "/api/waves": {
            "post": _operation(
                "waves",
                "The curve of every learner after 0, 1, ... gradient steps on some points.",
                _json(points),
                _object({"learners": _list(learner)}),
                ("400", "413", "415", "422"),
            )
        }
    }


def _predictions(*, with_map: bool) -> Schema:
    probability = _object({"class": {"type": "string"}, "probability": {"type": "number"}})
    one = _object({"class": {"type": "string"}, "probabilities": _list(probability)})
    if with_map:
        one["properties"]["map"] = _object({"x": {"type": "number"}, "y": {"type": "number"}})
    one["properties"]["known"] = {"type": "boolean"}
    return _object({"predictions": _list(one), "seconds": {"type": "number"}})


def _operation(
    name: str,
    summary: str,
    content: Mapping[str, Any] | None,
    answer: Schema,
    refusals: Sequence[str],
) -> Schema:
    """An operation; every one may be asked too often."""
    responses: dict[str, Any] = {"200": {"description": "Done.", "content": _json(answer)}}
    for status in (*refusals, "429"):
        error = _json({"$ref": "#/components/schemas/Error"})
        responses[status] = {"description": _REFUSALS[status], "content": error}
    operation: Schema = {"operationId": name, "summary": summary, "responses": responses}
    if content is not None:
        operation["requestBody"] = {"required": True, "content": dict(content)}
    return operation


def _json(schema: Schema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _object(properties: Mapping[str, Any], description: str | None = None) -> Schema:
    """An object that needs all of these fields and has no others."""
    schema: Schema = {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }
    return schema if description is None else {**schema, "description": description}


def _list(items: Schema, least: int = 0, most: int | None = None) -> Schema:
    schema: Schema = {"type": "array", "items": items, "minItems": least}
    return schema if most is None else {**schema, "maxItems": most}


def _text(longest: int) -> Schema:
    # Text of spaces alone is none.
    return {"type": "string", "minLength": 1, "maxLength": longest, "pattern": r"\S"}


def _picture(limits: Limits) -> Schema:
    return {
        "type": "string",
        "contentEncoding": "base64",
        "description": "A PNG, JPEG, WebP, GIF or BMP file in base64, with or without "
        f"'data:image/png;base64,' before it; at most {limits.picture_bytes} bytes and "
        f"{limits.picture_side} pixels a side.",
    }
