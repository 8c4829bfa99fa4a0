"""Downloads, against a server on this machine that can be slow, cut, dead or wrong."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kshot.data.download import DownloadError, download

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """Serves CONTENT at /file, and remembers the ranges that were asked for."""

    def __init__(self) -> None:
        self.ranges: list[str | None] = []
        self.cut_after: list[int] = []
        """For each of the first requests, after how many bytes to cut the connection."""
        self.knows_ranges = True
        self.content = CONTENT
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                asked = self.headers.get("Range")
                server.ranges.append(asked)
                if self.path != "/file":
                    self.send_error(404)
                    return
                start = int(asked[6:-1]) if asked and server.knows_ranges else 0
                body = server.content[start:]
                if asked and not body:
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                if start:
                    end, size = len(server.content) - 1, len(server.content)
                    self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if server.cut_after:
                    body = body[: server.cut_after.pop(0)]
                    self.close_connection = True
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/file"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


def fetch(folder: Path, *mirrors: str, sha256: str = SHA256) -> Path:
    return download("toys", "toys.zip", mirrors, folder=folder, sha256=sha256, hint="Or draw them.")


def test_a_file_is_fetched_once(server: Server, tmp_path: Path):
    path = fetch(tmp_path / "new", server.url)
    assert path == tmp_path / "new" / "toys.zip"
    assert path.read_bytes() == CONTENT
    fetch(tmp_path / "new", server.url)
    assert server.ranges == [None]
    assert list(path.parent.iterdir()) == [path]


def test_md5_serves_where_it_is_all_that_is_published(server: Server, tmp_path: Path):
    md5 = hashlib.md5(CONTENT).hexdigest()
    assert download("toys", "t", [server.url], folder=tmp_path, md5=md5).read_bytes() == CONTENT


def test_a_cut_connection_is_resumed(server: Server, tmp_path: Path):
    server.cut_after = [100_000, 200_000]
    assert fetch(tmp_path, server.url).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", "bytes=300000-"]


def test_a_later_call_goes_on_where_an_earlier_one_stopped(server: Server, tmp_path: Path):
    (tmp_path / "toys.zip.part").write_bytes(CONTENT[:1000])
    assert fetch(tmp_path, server.url).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["toys.zip"]


def test_a_complete_part_needs_no_more_bytes(server: Server, tmp_path: Path):
    (tmp_path / "toys.zip.part").write_bytes(CONTENT)
    assert fetch(tmp_path, server.url).read_bytes() == CONTENT


def test_what_has_arrived_is_kept_when_all_mirrors_fail(server: Server, tmp_path: Path):
    server.cut_after = [100_000, 0]
    with pytest.raises(DownloadError, match="cut after 100000 of 512000 bytes"):
        fetch(tmp_path, server.url)
    assert (tmp_path / "toys.zip.part").stat().st_size == 100_000
    assert fetch(tmp_path, server.url).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=100000-"


def test_a_part_of_another_version_is_thrown_away(server: Server, tmp_path: Path):
    (tmp_path / "toys.zip.part").write_bytes(b"old" * 1000)
    assert fetch(tmp_path, server.url).read_bytes() == CONTENT
    assert server.ranges == ["bytes=3000-", None]


def test_a_server_that_knows_no_ranges_starts_again(server: Server, tmp_path: Path):
    server.knows_ranges = False
    server.cut_after = [100_000]
    assert fetch(tmp_path, server.url).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]


def test_the_next_mirror_serves_when_the_first_is_dead(server: Server, tmp_path: Path):
    missing = server.url.replace("/file", "/missing")
    path = fetch(tmp_path, "http://127.0.0.1:9/file", missing, server.url)
    assert path.read_bytes() == CONTENT


def test_every_failure_is_named(server: Server, tmp_path: Path):
    missing = server.url.replace("/file", "/missing")
    with pytest.raises(DownloadError) as error:
        fetch(tmp_path, "http://127.0.0.1:9/file", missing)
    message = str(error.value)
    assert "Could not download toys.zip of toys" in message
    assert "127.0.0.1:9/file" in message and "refused" in message
    assert "404" in message
    assert str(tmp_path) in message and message.endswith("Or draw them.")


def test_a_wrong_digest_is_named_and_the_file_deleted(server: Server, tmp_path: Path):
    with pytest.raises(DownloadError, match=f"has sha256 {SHA256}, expected {'0' * 64}"):
        fetch(tmp_path, server.url, sha256="0" * 64)
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_fetched_again(server: Server, tmp_path: Path):
    (tmp_path / "toys.zip").write_bytes(CONTENT[:-1])
    assert fetch(tmp_path, server.url).read_bytes() == CONTENT


def test_two_downloads_at_once_do_not_disturb_each_other(server: Server, tmp_path: Path):
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(fetch(tmp_path, server.url).read_bytes()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [CONTENT] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["toys.zip"]


def test_a_digest_is_required(tmp_path: Path):
    with pytest.raises(ValueError, match="needs a sha256 or md5"):
        download("toys", "toys.zip", ["http://127.0.0.1:9/"], folder=tmp_path)
