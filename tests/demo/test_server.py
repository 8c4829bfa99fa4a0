"""The server's socket."""

import asyncio
import socket
from threading import Event

import pytest
import uvicorn
from starlette.applications import Starlette

from kshot.demo.server import listen, serve


def test_answers_do_not_wait_for_acknowledgements():
    async def no_delay() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            ours = writer.get_extra_info("socket")
            found.set_result(ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with listen("127.0.0.1", 0) as listener:
            server = await asyncio.start_server(connected, sock=listener)
            async with server:
                _, writer = await asyncio.open_connection(*listener.getsockname())
                writer.close()
                return await asyncio.wait_for(found, 10)

    assert asyncio.run(no_delay())


def test_a_port_that_is_taken_is_said():
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} .*choose another with --port"):
            listen("127.0.0.1", port)


def test_a_port_that_is_none_is_said():
    with pytest.raises(ValueError, match="from 0 to 65535, not 99999"):
        listen("127.0.0.1", 99999)


def test_ctrl_c_ends_the_server_as_it_should(monkeypatch: pytest.MonkeyPatch, capsys):
    def interrupted(self: uvicorn.Server, sockets: list[socket.socket]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", interrupted)
    begun = Event()
    serve(Starlette(), "127.0.0.1", 0, begun.set)
    assert begun.wait(10) and "kshot answers at" in capsys.readouterr().out


def test_nothing_begins_beside_a_server_that_cannot_listen():
    begun = Event()
    with listen("127.0.0.1", 0) as listener, pytest.raises(ValueError, match="--port"):
        serve(Starlette(), "127.0.0.1", listener.getsockname()[1], begun.set)
    assert not begun.wait(0.05)
