"""How much of Heap's limit an export uses, at full scale, with one identity that holds a third of the events.

Heap takes 15,000 events a minute, and 1,000 of one identity. While others wait, the whole limit can be used;
after that, only the identity's own. A third of 60,000 events takes 20 minutes by that alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import requests

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))
EVENT_TYPE = "users.behaviors.CustomEvent"


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--events", type=int, default=60_000)
    options.add_argument("--share", type=float, default=1 / 3, help="of one identity")
    chosen = options.parse_args()

    from airflow_provider_heapbraze.clients.event_budget import EventBudget, EventLimits
    from airflow_provider_heapbraze.clients.heap import HeapClient
    from airflow_provider_heapbraze.clients.transport import Transport
    from airflow_provider_heapbraze.events.export import Export, ExportRequest
    from airflow_provider_heapbraze.events.mapping import EventMapping, MappingRules
    from airflow_provider_heapbraze.events.source_ledger import ExportTarget, SourceLedger
    from airflow_provider_heapbraze.sandbox.connections import HEAP_APP_ID
    from airflow_provider_heapbraze.sandbox.server import SandboxServer
    from tests.currents import samples

    limits = EventLimits()
    with tempfile.TemporaryDirectory() as name, SandboxServer() as sandbox:
        sandbox.faults(latency=0.25)
        source = Path(name) / "source"
        records = samples.numbered(chosen.events, hot="hot-person", share=chosen.share)
        samples.write_avro(source / "events.avro", samples.schema(EVENT_TYPE), records, "deflate")
        client = HeapClient(Transport(requests.Session(), sandbox.url), HEAP_APP_ID)
        budget = EventBudget(client.environment, limits, folder=Path(name))
        ledger = SourceLedger(Path(name) / "ledger", ExportTarget(str(source), client.environment))
        export = Export(ExportRequest(source, "run"), ledger, EventMapping(MappingRules()), client, budget)
        started = time.monotonic()
        report = export.run()
        seconds = time.monotonic() - started
        entries = sandbox.requests()
        refused = sandbox.state()["limits_broken"]
        begin = entries[0]["time"]
        minutes: dict[int, int] = {}
        for entry in entries:
            minute = int((entry["time"] - begin) // limits.period)
            minutes[minute] = minutes.get(minute, 0) + entry["ids"]["set"]["identity"]
    hot = round(chosen.events * chosen.share)
    full = int((chosen.events - hot) / (limits.events - limits.events_per_identity))
    used = sum(minutes.get(minute, 0) for minute in range(full)) / (full * limits.events) if full else 0
    fastest = (
        max(-(-hot // limits.events_per_identity), -(-chosen.events // limits.events)) - 1
    ) * limits.period
    print(f"{report['sent']:,} events in {seconds:,.1f} s; the limits allow {fastest:,.0f} s at the least")
    print(f"refused: {refused or 'none'}")
    print(f"while others waited ({full} minutes): {used:.2%} of {limits.events:,} events a minute")
    print("events by minute:", *(f"{minutes[minute]:,}" for minute in sorted(minutes)))


if __name__ == "__main__":
    main()
