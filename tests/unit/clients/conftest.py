"""A clock that costs no time, and an HTTP server that records what it gets and answers as told."""

from __future__ import annotations

import json
import socket
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests

from airflow_provider_heapbraze.clients.transport import RetryPolicy, Transport


class FakeClock:
    """Time passes by sleeping only.

    :param late: seconds by which every sleep is too long.
    """

    def __init__(self, *, late: float = 0.0) -> None:
        self.time = 1_700_000_000.0
        self.late = late
        self._lock = threading.Lock()

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.time += seconds + self.late


@dataclass
class Reply:
    """What the server answers.

    :param cut: it hangs up instead.
    :param missing: so many bytes of the body are announced and do not come.
    :param chunked: the body comes in one chunk of unannounced length; with ``missing``, without its end.
    """

    status: int = 201
    body: Any = field(default_factory=lambda: {"message": "success"})
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    missing: int = 0
    chunked: bool = False

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass
class Recorded:
    method: str
    path: str
    headers: dict[str, str]
    content: bytes
    connection: tuple[str, int]

    @property
    def body(self) -> Any:
        return json.loads(self.content)


class RecordingServer(ThreadingHTTPServer):
    """Answers the replies of its script, one each, and then the default one for ever."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.recorded: list[Recorded] = []
        self.default = Reply()
        self.before_answer = lambda: None
        self._script: list[Reply] = []
        self._lock = threading.Lock()

    def script(self, *replies: Reply) -> None:
        self._script.extend(replies)

    def record(self, request: Recorded) -> Reply:
        with self._lock:
            self.recorded.append(request)
            return self._script.pop(0) if self._script else self.default

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client may hang up
            super().handle_error(request, client_address)

    @property
    def only(self) -> Recorded:
        (request,) = self.recorded
        return request


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: RecordingServer

    def handle_any(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Recorded(self.command, self.path, dict(self.headers), content, self.client_address)
        reply = self.server.record(request)
        self.server.before_answer()
        if reply.cut:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        content = reply.content
        if reply.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            content = b"%x\r\n%b\r\n" % (len(content), content) + (b"" if reply.missing else b"0\r\n\r\n")
        else:
            self.send_header("Content-Length", str(len(content) + reply.missing))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.close_connection = self.close_connection or reply.missing > 0

    do_GET = do_POST = do_HEAD = handle_any  # noqa: N815 - named by http.server

    def log_message(self, *_args: Any) -> None:
        pass


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def late_clock():
    """Make a clock whose sleeps are always too long."""
    return lambda late: FakeClock(late=late)


@pytest.fixture
def reply():
    return Reply


@pytest.fixture
def server():
    with RecordingServer() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def session():
    with requests.Session() as opened:
        yield opened


@pytest.fixture
def make_transport(server, session, clock):
    """Make a transport to the recording server; waits take no time and jitter is half of what it may be."""

    def make(**settings: Any) -> Transport:
        chosen = {"clock": clock, "random": lambda: 0.5, "retry": RetryPolicy(attempts=3), **settings}
        return Transport(session, server.url, **chosen)

    return make
