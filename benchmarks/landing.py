"""Take pushed pages and batches over HTTP: this package, itself without flushing, and a file per request.

Server and load generator are processes of their own and share the machine. A delivery counts when it has been
answered with 200; afterwards every one of them is looked for in the landing path.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hmac
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))
SECRET, TOKEN = "secret-of-the-benchmark", "token-of-the-benchmark"
MEMBERS, EVENTS = 1_000, 100
WHO = {"ours": "this package", "unflushed": "without flushing", "plain": "a file per request"}
DIFFERENT = 16  # requests; they are sent in turn


def ours(path: Path):
    from airflow_provider_heapbraze.landing.app import make_app
    from airflow_provider_heapbraze.landing.settings import Settings

    return make_app(Settings(path, (SECRET,), (TOKEN,)))


def unflushed(path: Path):
    os.fsync = lambda _descriptor: None
    return ours(path)


def plain(path: Path):
    """What an engineer writes in an afternoon: checked, and a flushed file for each request."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import Response
    from starlette.routing import Route

    numbers = iter(range(10**9))

    async def heap(request):
        body = await request.body()
        sent_at, given = request.headers["heap-hash"].removeprefix("ts:").split(",hmac:")
        digest = hmac.digest(SECRET.encode(), sent_at.encode() + body, "sha256")
        assert hmac.compare_digest(base64.b64encode(digest).decode(), given)
        assert abs(time.time() * 1000 - int(sent_at)) < 60_000
        segment = json.loads(body)["data"]["segment"]["id"]
        await run_in_threadpool(write_flushed, path / f"heap-{segment}", next(numbers), body)
        return Response()

    async def braze(request):
        assert hmac.compare_digest(request.headers["authorization"], f"Bearer {TOKEN}")
        body = await request.body()
        assert json.loads(body)["events"]
        await run_in_threadpool(write_flushed, path / "braze", next(numbers), body)
        return Response()

    return Starlette(
        routes=[
            Route("/heap/segments", heap, methods=["POST"]),
            Route("/braze/currents/main", braze, methods=["POST"]),
        ]
    )


def write_flushed(folder: Path, number: int, body: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{number}.tmp"
    with temporary.open("xb") as file:
        file.write(body + b"\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(folder / f"{number}.ndjson")
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def serve(who: str, path: Path) -> None:
    import uvicorn

    sock = socket.create_server(("127.0.0.1", 0), backlog=512)
    print(sock.getsockname()[1], flush=True)
    app = {"ours": ours, "unflushed": unflushed, "plain": plain}[who](path)
    config = uvicorn.Config(app, ws="none", lifespan="off", access_log=False, log_level="error")
    uvicorn.Server(config).run(sockets=[sock])


def pages() -> list[bytes]:
    """Write requests of pages with a thousand members, signed now."""
    requests = []
    for number in range(DIFFERENT):
        body = json.dumps(
            {
                "action_type": "segment.users.sync",
                "data": {
                    "segment": {"id": 1338065, "name": "Benchmark"},
                    "sync_info": {"page_number": number, "total_pages": DIFFERENT, "sync_task_id": "task"},
                    "add": [{"id": f"person-{member:08}@example.com"} for member in range(MEMBERS)],
                },
            }
        ).encode()
        sent_at = str(int(time.time() * 1000))
        digest = base64.b64encode(hmac.digest(SECRET.encode(), sent_at.encode() + body, "sha256")).decode()
        requests.append(request("/heap/segments", f"Heap-Hash: ts:{sent_at},hmac:{digest}", body))
    return requests


def batches() -> list[bytes]:
    """Write requests of batches with a hundred events."""
    event = {
        "event_type": "users.messages.email.Open",
        "time": 1_795_600_000,
        "user": {"user_id": "5f0c1e7a9b1d4c0012345678", "external_user_id": "person-00000000@example.com"},
        "properties": {
            "campaign_id": "c4f1a6de-5b6e-4a0b-9a53-1f3f5d5c1d11",
            "campaign_name": "Benchmark",
            "message_variation_id": "b7c1cbb0-36ab-4f35-8d1c-1f7f1d2b7b12",
            "dispatch_id": "0f2b5d3c4a1e4f6f8a7b6c5d4e3f2a1b",
            "email_address": "person-00000000@example.com",
            "user_agent": "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0",
        },
    }
    return [
        request(
            "/braze/currents/main",
            f"Authorization: Bearer {TOKEN}",
            json.dumps({"events": [{"id": f"{number}-{one}", **event} for one in range(EVENTS)]}).encode(),
        )
        for number in range(DIFFERENT)
    ]


def request(path: str, header: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: landing\r\n{header}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Connection(asyncio.Protocol):
    """Sends a request when the one before has been answered, until it is time."""

    def __init__(self, requests, until, seconds):
        self._requests = requests
        self._until = until
        self._seconds = seconds  # of every answer
        self._number = 0
        self._received = b""
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self._transport = transport
        self._send()

    def _send(self):
        self._number += 1
        self._started = time.perf_counter()
        self._transport.write(self._requests[self._number % len(self._requests)])

    def data_received(self, data):
        self._received += data
        if not self._received.endswith(b"\r\n\r\n"):  # an answer of 200 has no body
            return
        self._seconds.append(time.perf_counter() - self._started)
        assert self._received.startswith(b"HTTP/1.1 200"), self._received
        self._received = b""
        if time.perf_counter() < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error):
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


async def load(port: int, requests: list[bytes], connections: int, duration: float) -> list[float]:
    seconds: list[float] = []
    until = time.perf_counter() + duration
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: Connection(requests, until, seconds), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.gather(*(connection.done for _, connection in made))
    return seconds


def measured(who: str, what: str, connections: int, duration: float, folder: Path) -> dict[str, float]:
    path = folder / "landing"
    command = [sys.executable, __file__, "--serve", who, "--path", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            port = int(server.stdout.readline())
            requests = {"pages": pages, "batches": batches}[what]()
            asyncio.run(load(port, requests, 1, 0.3))  # warm
            before = len(landed(path))
            started, cpu = time.perf_counter(), cpu_of(server.pid)
            seconds = asyncio.run(load(port, requests, connections, duration))
            rate = len(seconds) / (time.perf_counter() - started)
            cpu = (cpu_of(server.pid) - cpu) / len(seconds)
        finally:
            server.terminate()
    files = landed(path)[before:]
    lines = sum(file.read_bytes().count(b"\n") for file in files)
    assert lines == len(seconds), "what was answered with 200 is there"
    shutil.rmtree(path)
    cuts = statistics.quantiles(seconds, n=100)
    return {
        "rate": rate,
        "cpu": cpu * 1000,
        "p50": cuts[49] * 1000,
        "p99": cuts[98] * 1000,
        "per_file": lines / len(files),
        "bytes": len(requests[0]),
    }


def cpu_of(process: int) -> float:
    times = psutil.Process(process).cpu_times()
    return times.user + times.system


def landed(path: Path) -> list[Path]:
    return sorted(path.rglob("*.ndjson"), key=lambda file: file.stat().st_mtime_ns)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--seconds", type=float, default=4)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    options.add_argument("--folder", type=Path, help="on the disk to measure (default: the temporary one)")
    options.add_argument("--serve")
    options.add_argument("--path", type=Path)
    chosen = options.parse_args()
    if chosen.serve:
        serve(chosen.serve, chosen.path)
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"Pages of {MEMBERS:,} members, batches of {EVENTS} events; median of {chosen.runs} runs\n")
    print(f"{'what':<8}{'KiB':>5}{'connections':>12}  {'who':<20}", end="")
    print(f"{'requests/s':>11}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms':>8}{'per file':>10}")
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        for what in ("pages", "batches"):
            for connections in chosen.connections:
                found: dict[str, list] = {who: [] for who in WHO}
                for _ in range(chosen.runs):
                    for who, runs in found.items():
                        runs.append(measured(who, what, connections, chosen.seconds, Path(folder)))
                for who, runs in found.items():
                    rate, p50, p99, cpu, per_file, size = (
                        statistics.median(run[name] for run in runs)
                        for name in ("rate", "p50", "p99", "cpu", "per_file", "bytes")
                    )
                    print(
                        f"{what:<8}{size / 1024:>5,.0f}{connections:>12}  {WHO[who]:<20}{rate:>11,.0f}"
                        f"{p50:>9.1f}{p99:>9.1f}{cpu:>8.2f}{per_file:>10.1f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
