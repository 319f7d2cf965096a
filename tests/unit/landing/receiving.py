"""A receiver on loopback, what is sent to it, and what has landed."""

from __future__ import annotations

import asyncio
import base64
import hmac
import http.client
import json
import logging
import re
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import uvicorn

from airflow_provider_heapbraze.landing.settings import Settings
from airflow_provider_heapbraze.membership.tables import workspace
from airflow_provider_heapbraze.segments_sync.members import SegmentSyncMembers

SAMPLES = Path(__file__).parents[3].parent / "shared" / "data" / "heap"
SECRET, TOKEN = "private-webhook-secret", "private-braze-token"
NOW = 1_795_600_000_000  # 2026-11-25 09:46:40
HOUR = "date=2026-11-25-09"


class Clock:
    """A clock that stands still unless it is set."""

    def __init__(self, now=NOW):
        self.milliseconds = now

    def now(self):
        return self.milliseconds / 1000

    def monotonic(self):
        return self.milliseconds / 1000

    def sleep(self, seconds):
        raise AssertionError("nothing here sleeps")


def settings(path, **others):
    return Settings(path, **{"heap_secrets": (SECRET,), "braze_tokens": (TOKEN,), **others})


def page(segment_id=1338065, task="private-task", number=1, members=("private-person-1",)):
    return json.dumps(
        {
            "action_type": "segment.users.sync",
            "data": {
                "segment": {"id": segment_id, "name": "Private segment"},
                "sync_info": {"page_number": number, "total_pages": 1, "sync_task_id": task},
                "add": [{"id": member} for member in members],
            },
        }
    ).encode()


def batch(*ids):
    events = [{"event_type": "users.messages.email.Open", "id": one, "time": 1_795_600_000} for one in ids]
    return json.dumps({"events": events}).encode()


def signed(body, sent_at=NOW, secret=SECRET):
    digest = hmac.digest(secret.encode(), str(sent_at).encode() + body, "sha256")
    return {"Heap-Hash": f"ts:{sent_at},hmac:{base64.b64encode(digest).decode()}"}


def bearer(token=TOKEN):
    return {"Authorization": f"Bearer {token}"}


def files(path):
    """Return every file below the landing path; there must be no temporary one among them."""
    found = sorted(file for file in path.rglob("*") if file.is_file())
    assert not [file.name for file in found if file.name.startswith(".")]
    return found


def quarantined(path):
    """Return the bodies that were kept as they came, by their folder; nothing else may be there."""
    names = {file: file.relative_to(path).as_posix() for file in files(path)}
    assert all(
        re.fullmatch(r"quarantine/[a-z]+(/[A-Za-z0-9_-]+)?/[0-9a-f]{32}\.body", name)
        for name in names.values()
    )
    return sorted((name.rpartition("/")[0], file.read_bytes()) for file, name in names.items())


def landed(path):
    """Return what has landed, whole."""
    texts = [file.read_bytes() for file in files(path)]
    assert all(text.endswith(b"\n") for text in texts)
    return [json.loads(line) for text in texts for line in text.splitlines()]


def folded(path, segment_id):
    """Return the members of a segment, as a match gets them."""
    access = SimpleNamespace(ledger=path / "ledger", path=Path)
    with workspace() as space:
        (part,) = SegmentSyncMembers(str(path), segment_id).parts(space, access, ["identity"])
        return sorted(json.loads(value) for (value,) in space.ask(part.query))


class Receiver:
    """A client of a receiver, and its clock."""

    def __init__(self, client, clock):
        self.client = client
        self.clock = clock

    def heap(self, body, headers=None):
        return self.client.post(
            "/heap/segments", content=body, headers=signed(body) if headers is None else headers
        )

    def braze(self, body, headers=None, source="main"):
        return self.client.post(
            f"/braze/currents/{source}", content=body, headers=bearer() if headers is None else headers
        )

    def metric(self, name, **labels):
        return metric(self.client.get("/metrics").text, name, **labels)

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.client.base_url.port), timeout=60)

    def wait_until_open(self, deliveries):
        wait_until(
            lambda: (
                sum(
                    self.metric("heapbraze_landing_open_requests", route=route) for route in ("heap", "braze")
                )
                == deliveries
            )
        )


def head(path, headers, length):
    """Return the head of a request of so many bytes."""
    lines = [f"POST {path} HTTP/1.1", "Host: receiver", f"Content-Length: {length}"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode()


def answer_of(sock):
    """Read an answer's status and whether the connection is closed after it."""
    answer = http.client.HTTPResponse(sock)
    answer.begin()
    answer.read()
    return answer.status, answer.will_close


def metric(text, name, **labels):
    """Read a number of a page of metrics; 0 where it is not there."""
    wanted = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    head = f"{name}{{{wanted}}} " if labels else f"{name} "
    return next((float(line[len(head) :]) for line in text.splitlines() if line.startswith(head)), 0.0)


def wait_until(done):
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.002)


def server_of(app):
    return uvicorn.Server(
        uvicorn.Config(
            app,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            timeout_keep_alive=3_600,  # a test that comes late finds its connection open
            timeout_graceful_shutdown=5,
        )
    )


@contextmanager
def serving(server):
    """Serve from a thread; give the port."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()  # who comes before the server does waits
    thread = threading.Thread(target=server.run, args=([sock],))
    thread.start()
    try:
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


class Switch:
    """An app that passes every request to another one, so that many tests share a server."""

    def __init__(self):
        self.app = None

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


async def ask(app, method, path, headers=(), chunks=(b"",)):
    """Send a request to an app without a network; return the status."""
    messages = [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks) - 1}
        for number, chunk in enumerate(chunks)
    ]
    answers = []

    async def receive():
        return messages.pop(0) if messages else await asyncio.Future()

    async def send(message):
        answers.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(errors="surrogatepass"),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": list(headers),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 1),
    }
    await app(scope, receive, send)
    return answers[0]["status"]


logging.getLogger("httpx").setLevel(logging.WARNING)  # its lines hold URLs
