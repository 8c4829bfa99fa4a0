"""The server: a page, its files, the API, and headers that keep the page to itself."""

import socket
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from threading import Thread
from typing import Literal

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kshot.demo.api import Api

__all__ = ["build_app", "listen", "serve"]

STATIC = Path(str(files("kshot.demo"))) / "static"

HEADERS = {
    # The page asks nobody else for anything, and nobody else can frame it or use its camera.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def build_app(api: Api, page: Literal["draw", "waves"] | None = None) -> Starlette:
    """The application of an API and perhaps a page.

    Args:
        api: the API.
        page: what "/" shows; None shows the description of the API.
    """

    async def index(request: Request) -> Response:
        if page is None:
            return await api.openapi(request)
        return FileResponse(STATIC / f"{page}.html")

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # the only kind it is registered for
        paths = ", ".join(route.path for route in api.routes)
        sentence = {
            404: f"Expected one of the paths {paths}, and {request.url.path[:80]!r} came.",
            405: f"Expected another method than {request.method} for {request.url.path[:80]!r}.",
        }.get(error.status_code, error.detail)
        return JSONResponse({"error": sentence}, error.status_code, headers=error.headers)

    routes: list[Route | Mount] = [Route("/", index, methods=["GET"]), *api.routes]
    if page is not None:
        routes.append(Mount("/static", StaticFiles(directory=STATIC)))
    return Starlette(
        routes=routes,
        middleware=[Middleware(_OwnHeaders), Middleware(GZipMiddleware, minimum_size=2000)],
        exception_handlers={HTTPException: refused},
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket that accepts connections.

    Args:
        host: address to listen on.
        port: its port; 0 takes a free one.

    Raises:
        ValueError: when nothing can listen there.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"--port is a number from 0 to 65535, not {port}.")
    try:
        made = socket.create_server((host, port))
    except OSError as error:
        raise ValueError(
            f"Nothing can listen on {host}, port {port} ({error.strerror or error}): choose "
            "another with --port or --host."
        ) from error
    # asyncio turns Nagle's algorithm off only for sockets that say their protocol; with it, an
    # answer waits 40 ms for the other side's acknowledgement.
    return socket.socket(made.family, made.type, socket.IPPROTO_TCP, made.detach())


def serve(
    app: Starlette, host: str, port: int, meanwhile: Callable[[], None] | None = None
) -> None:
    """Answer requests until interrupted.

    Args:
        app: what answers.
        host: address to listen on.
        port: its port; 0 takes a free one.
        meanwhile: what to do beside, once it listens.

    Raises:
        ValueError: when nothing can listen there.
    """
    listener = listen(host, port)
    # Requests share the processor among themselves; threads within one would only wait.
    torch.set_num_threads(1)
    config = uvicorn.Config(
        app, log_level="warning", server_header=False, timeout_keep_alive=20, limit_concurrency=512
    )
    with listener:
        place = listener.getsockname()[1]
        print(f"kshot answers at http://{host}:{place} (Ctrl+C ends it)", flush=True)
        if meanwhile is not None:
            # No daemon: a process that ends amid PyTorch's work in a thread aborts.
            Thread(target=meanwhile).start()
        with suppress(KeyboardInterrupt):  # which is how it is meant to end
            uvicorn.Server(config).run(sockets=[listener])


class _OwnHeaders:
    """Adds the page's headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                # A newer kshot has other files under the same names.
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        await self._app(scope, receive, with_headers)
