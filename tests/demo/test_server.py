"""The server's socket."""

import asyncio
import socket

import pytest

from kshot.demo.server import listen


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
