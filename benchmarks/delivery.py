"""A first import of a cohort: at Braze's limit, with faults, and without a limit; beside a plain loop.

At the limit Braze is the sandbox, which takes 250 ms for an answer and counts what passes its limit. Without
any it is a process that says yes to everything, since nothing that reads a request is fast enough. The CPU
seconds are those of the importing process alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import requests
from measuring import SPAWN, Measure, machine, measured, side_by_side
from nights import TODAY, night, write_match

LATENCY = 0.25
# One answer in a hundred: too fast, locked, out of order.
FAULTS = {"rates": {"429-retry-after-seconds": 0.003, "423": 0.003, "5xx-before": 0.004}, "wait": 1}
YES = b'HTTP/1.1 201 Created\r\nContent-Length: 21\r\n\r\n{"message":"success"}'


def import_ours(folder: Path, url: str, requests_per_hour: int) -> int:
    from airflow_provider_heapbraze.clients.braze import BrazeClient, BrazeKeys, BrazeLimits, Limit
    from airflow_provider_heapbraze.clients.transport import Transport
    from airflow_provider_heapbraze.membership.guards import Guards
    from airflow_provider_heapbraze.membership.senders import CohortSender
    from airflow_provider_heapbraze.membership.sync import Sync

    limits = BrazeLimits(cohort=Limit(requests_per_hour, 3600.0))
    with (
        tempfile.TemporaryDirectory(dir=folder) as root,
        BrazeClient(Transport(requests.Session(), url), BrazeKeys(**keys()), limits) as client,
    ):
        ledger, request = night(folder, TODAY, target=Path(root))
        sync = Sync(ledger, CohortSender(client, "cohort"), client.statistics, access=None)
        return sync.run(request, Guards())["waterfall"]["acknowledged"]


def import_plain(folder: Path, url: str) -> int:
    """What an engineer writes in an afternoon: whatever fails is tried again after a second."""
    import pyarrow.parquet as pq

    given = keys()
    cohort = {
        "partner_api_key": given["partner_api_key"],
        "client_secret": given["data_import_key"],
        "cohort_id": "plain",
    }
    sent = 0
    request = night(folder, TODAY)[1]
    identifiers = request.match_folder / request.match.file_of("identifiers")
    with requests.Session() as session:
        session.headers["User-Agent"] = "partner-Heap-Plain/1"
        post_until_taken(
            session,
            f"{url}/partners/heap/cohorts",
            {**cohort, "name": "Plain", "created_at": f"{TODAY}T00:00:00.000Z"},
        )
        for batch in pq.ParquetFile(identifiers).iter_batches(batch_size=1000, columns=["value"]):
            people = batch["value"].to_pylist()
            changes = [{"user_ids": people, "device_ids": [], "aliases": []}]
            post_until_taken(
                session, f"{url}/partners/heap/cohorts/users", {**cohort, "cohort_changes": changes}
            )
            sent += len(people)
    return sent


def post_until_taken(session: requests.Session, url: str, body: dict[str, object]) -> None:
    while (status := session.post(url, json=body, timeout=60).status_code) != 201:
        if status in {400, 401}:
            raise SystemExit(f"refused: {status}")
        time.sleep(1)


def keys() -> dict[str, str]:
    from airflow_provider_heapbraze.sandbox import connections

    return {"partner_api_key": connections.PARTNER_API_KEY, "data_import_key": connections.DATA_IMPORT_KEY}


def write_people(folder: Path, people: int) -> None:
    write_match(folder, TODAY, range(people))


@contextmanager
def braze(**faults: object) -> Iterator[tuple[str, object]]:
    """Run the sandbox, in a process of its own, which takes people whom it does not know."""
    from airflow_provider_heapbraze.sandbox.client import Sandbox

    ready, told = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=_serve_sandbox, args=(told,), daemon=True)
    process.start()
    url = ready.recv()
    sandbox = Sandbox(url)
    sandbox.faults(**{"latency": LATENCY, **faults})
    try:
        yield url, sandbox
    finally:
        process.terminate()


def _serve_sandbox(told: multiprocessing.connection.Connection) -> None:
    from airflow_provider_heapbraze.sandbox.server import SandboxServer

    with SandboxServer() as sandbox:
        told.send(sandbox.url)
        threading.Event().wait()


@contextmanager
def yes_man() -> Iterator[str]:
    """Run what takes every request."""
    ready, told = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=_say_yes, args=(told,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ready.recv()}"
    finally:
        process.terminate()


def _say_yes(told: multiprocessing.connection.Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        told.send(server.getsockname()[1])
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    with connection, connection.makefile("rb") as incoming:
        while line := incoming.readline():
            length = 0
            while line.strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
                line = incoming.readline()
            incoming.read(length)
            connection.sendall(YES)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--people", type=int, default=1_000_000)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--requests-per-hour", type=int, default=250_000)
    chosen = options.parse_args()
    least = chosen.people / 1000 / chosen.requests_per_hour * 3600
    print(f"{machine()}; {chosen.people:,} people; at the limit once, else the median of {chosen.runs} runs")
    print(f"The limit allows {least:.1f} s at the least.\n")
    print(
        f"{'work':<26}{'who':<14}{'seconds':>9}{'x limit':>9}{'CPU s':>8}{'people/CPU s':>14}{'peak MiB':>10}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured(write_people, folder, chosen.people)
        for work, faults in (("at the limit", {}), ("with 1 % of faults", FAULTS)):
            with braze(**faults) as (url, sandbox):
                arguments = (folder, url, chosen.requests_per_hour)
                cases = {"this package": partial(measured, import_ours, *arguments)}
                cases["plain loop"] = partial(measured, import_plain, *arguments[:2])
                show(work, side_by_side(1, cases), least)
                print(f"  refused as too many: {sandbox.state()['limits_broken'] or 'none'}")
        with yes_man() as url:
            arguments = (folder, url, 10**9)
            cases = {"this package": partial(measured, import_ours, *arguments)}
            cases["plain loop"] = partial(measured, import_plain, *arguments[:2])
            show("without a limit", side_by_side(chosen.runs, cases), None)


def show(work: str, found: dict[str, Measure], least: float | None) -> None:
    for who, measure in found.items():
        times = f"{measure.seconds / least:>9.2f}" if least else f"{'':>9}"
        print(
            f"{work:<26}{who:<14}{measure.seconds:>9.1f}{times}{measure.cpu:>8.1f}"
            f"{measure.done / measure.cpu:>14,.0f}{measure.mib:>10,.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
