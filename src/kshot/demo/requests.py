"""What comes in: requests read within bounds, and checked field by field."""

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from PIL import Image
from starlette.requests import Request

from kshot.demo.drawings import PictureRefused, open_picture
from kshot.demo.limits import ApiError, Limits

__all__ = [
    "check_fields",
    "decode_file",
    "decode_picture",
    "read_body",
    "read_json",
    "read_list",
    "read_points",
    "read_text",
]

DRAINED = 4
"""A body that is too large is read up to so many times the bound, so that the sender, who reads
only when all is sent, gets the answer."""


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body of a request.

    Raises:
        ApiError: 413 when it is too large.
    """
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size <= limits.body_bytes:
            parts.append(part)
        elif size > DRAINED * limits.body_bytes:
            break
    if size > limits.body_bytes:
        raise ApiError(
            413,
            f"Expected at most {limits.body_bytes / 1e6:g} MB in a request, and this one has "
            f"{size / 1e6:.1f} MB or more: make the pictures smaller, or send fewer.",
        )
    return b"".join(parts)


async def read_json(request: Request, limits: Limits) -> dict[str, Any]:
    """The JSON object in the body of a request.

    Raises:
        ApiError: 415 for another type of content, 400 for what is no JSON object, 413 when it is
            too large.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        await read_body(request, limits)
        raise ApiError(
            415,
            f"Expected the header Content-Type: application/json, and it is {kind or 'missing'!r}.",
        )
    body = await read_body(request, limits)
    try:
        content = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
        raise ApiError(
            400, f"Expected a JSON object in the body, and it cannot be read: {reason[:200]}."
        ) from error
    if not isinstance(content, dict):
        raise ApiError(
            400, f"Expected a JSON object in the body, {{...}}, and it is {_kind(content)}."
        )
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON, send finite numbers")


def check_fields(
    content: Mapping[str, Any], needed: Sequence[str], allowed: Sequence[str], where: str
) -> None:
    """Refuse missing and unknown fields (422)."""
    for name in needed:
        if name not in content:
            raise ApiError(
                422, f"Expected the field {name!r} in {where}, and it is missing: add it."
            )
    for name in content:
        if name not in (*needed, *allowed):
            known = ", ".join((*needed, *allowed))
            raise ApiError(
                422,
                f"Expected only the fields {known} in {where}, and {name[:60]!r} came: drop it.",
            )


def read_text(value: Any, where: str, longest: int, *, empty: bool = False) -> str:
    """Text of a bounded length, without characters that cannot be shown."""
    if not isinstance(value, str):
        raise ApiError(422, f"Expected text in {where}, and it is {_kind(value)}.")
    text = value.strip()
    if len(text) > longest:
        raise ApiError(
            422,
            f"Expected at most {longest} characters in {where}, and there are {len(text)}: "
            "shorten it.",
        )
    if not text and not empty:
        raise ApiError(422, f"Expected text in {where}, and it is empty: write something.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ApiError(
            422, f"Expected Unicode text in {where}, and it has half a surrogate pair."
        ) from None
    return text


def read_list(value: Any, where: str, least: int, most: int) -> list[Any]:
    """A list of a bounded length."""
    if not isinstance(value, list):
        raise ApiError(422, f"Expected a list in {where}, and it is {_kind(value)}.")
    if not least <= len(value) <= most:
        advice = "add some" if len(value) < least else "leave some out"
        raise ApiError(
            422,
            f"Expected {least} to {most} items in {where}, and there are {len(value)}: {advice}.",
        )
    return value


def decode_picture(value: Any, where: str, limits: Limits) -> Image.Image:
    """The picture of a file in base64, with or without `data:...;base64,` before it.

    Raises:
        ApiError: 422 when it is none; 413 when the file is too large.
    """
    if not isinstance(value, str):
        raise ApiError(
            422, f"Expected {where} as the base64 text of a picture file, and it is {_kind(value)}."
        )
    text = value.partition(",")[2] if value.startswith("data:") else value
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(
            422,
            f"Expected {where} as the base64 text of a picture file, and it is not base64: encode "
            "the file's bytes, without line breaks.",
        ) from error
    return decode_file(content, where, limits)


def decode_file(content: bytes, where: str, limits: Limits) -> Image.Image:
    """The picture of a file's bytes; errors as of `decode_picture`."""
    if len(content) > limits.picture_bytes:
        raise ApiError(
            413,
            f"Expected {where} to be at most {limits.picture_bytes / 1e6:g} MB, and it has "
            f"{len(content) / 1e6:.1f} MB: make it smaller.",
        )
    try:
        return open_picture(content, largest_side=limits.picture_side, name=where)
    except PictureRefused as error:
        raise ApiError(422, str(error)) from error


def read_points(value: Any, limits: Limits) -> list[tuple[float, float]]:
    """Points (x, y) of a wave."""
    points = []
    for number, point in enumerate(read_list(value, "'points'", 1, limits.points), 1):
        pair = read_list(point, f"point {number}", 2, 2)
        for part in pair:
            is_number = isinstance(part, int | float) and not isinstance(part, bool)
            if not is_number or not math.isfinite(part) or abs(part) > 10:
                raise ApiError(
                    422,
                    f"Expected point {number} as two numbers from -10 to 10, and one is "
                    f"{str(part)[:40]}.",
                )
        points.append((float(pair[0]), float(pair[1])))
    return points


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return "null" if value is None else kinds.get(type(value), "a number")
