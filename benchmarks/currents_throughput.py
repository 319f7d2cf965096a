"""Read, map and encode Currents events, without a network: this package beside a plain loop.

Each case runs in a process of its own, on one core; the table shows the median of several runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))
EVENT_TYPE = "users.messages.email.Open"
PER_REQUEST = 1000
PERSONAL = {"user_id", "external_user_id", "email_address"}


def ours(path: Path) -> int:
    from pyroaring import BitMap

    from airflow_provider_heapbraze.events.mapping import EventMapping, HeapEvent, MappingRules
    from airflow_provider_heapbraze.events.reading import read_events

    mapping = EventMapping(MappingRules())
    sent, batch = 0, []
    for _, event in read_events(path, EVENT_TYPE, BitMap()):
        mapped = mapping.map(event)
        if isinstance(mapped, HeapEvent):
            batch.append(mapped.body)
        if len(batch) == PER_REQUEST:
            sent += len(b'{"app_id":"1","events":[' + b",".join(batch) + b"]}") > 0 and len(batch)
            batch = []
    return sent + len(batch)


def plain(path: Path) -> int:
    """What an engineer writes in an afternoon, with the same mapping."""
    sent, batch = 0, []
    for record in plain_records(path):
        if record["external_user_id"]:
            batch.append(plain_event(record))
        if len(batch) == PER_REQUEST:
            sent += len(json.dumps({"app_id": "1", "events": batch})) > 0 and len(batch)
            batch = []
    return sent + len(batch)


def plain_records(path: Path):
    import fastavro

    if path.suffix == ".avro":
        with path.open("rb") as file:
            yield from fastavro.reader(file)
        return
    with path.open() as file:
        for line in file:
            yield {
                name: next(iter(value.values())) if isinstance(value, dict) else value
                for name, value in json.loads(line).items()
            }


def plain_event(record: dict) -> dict:
    properties = {"braze_event_type": EVENT_TYPE}
    for name, value in record.items():
        if value is None or name in PERSONAL or name in {"id", "time"}:
            continue
        if isinstance(value, bool):
            properties[name[:1023]] = "true" if value else "false"
        else:
            properties[name[:1023]] = value[:1023] if isinstance(value, str) else value
    return {
        "event": "Email Open",
        "identity": record["external_user_id"],
        "timestamp": datetime.fromtimestamp(record["time"], UTC).isoformat(),
        "idempotency_key": record["id"],
        "properties": properties,
    }


def write_inputs(folder: Path, events: int) -> dict[str, Path]:
    """Write the same events as Avro and as JSON lines with unions."""
    from tests.currents import samples

    schema, records = samples.schema(EVENT_TYPE), samples.records(EVENT_TYPE)[:2]
    avro, lines = folder / "events.avro", folder / "events.jsonl"
    repeated = (records[number % len(records)] for number in range(events))
    samples.write_avro(avro, schema, repeated, "deflate")
    texts = [json.dumps(samples.with_unions(record, schema)) + "\n" for record in records]
    with lines.open("w") as file:
        file.writelines(texts[number % len(texts)] for number in range(events))
    return {"Avro": avro, "JSON": lines}


def measured(who: str, path: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", who, "--path", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def run_case(who: str, path: Path) -> None:
    os.sched_setaffinity(0, {0})
    started, cpu = time.perf_counter(), time.process_time()
    events = {"ours": ours, "plain": plain}[who](path)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "events": events,
                "per_second": events / (time.perf_counter() - started),
                "cpu": time.process_time() - cpu,
                "mib": usage.ru_maxrss / 1024,
            }
        )
    )


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--events", type=int, default=1_000_000)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--case")
    options.add_argument("--path", type=Path)
    chosen = options.parse_args()
    if chosen.case:
        run_case(chosen.case, chosen.path)
        return
    print(f"{platform.node()}, {platform.machine()}, Python {platform.python_version()}, one core")
    print(f"{chosen.events:,} events of {EVENT_TYPE}, median of {chosen.runs} runs\n")
    print(f"{'form':<6}{'who':<14}{'events/s':>10}{'CPU s':>9}{'peak MiB':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for form, path in write_inputs(Path(folder), chosen.events).items():
            runs = {"ours": [], "plain": []}
            for _ in range(chosen.runs):
                for who, results in runs.items():
                    results.append(measured(who, path))
            rates = {}
            for who, results in runs.items():
                assert {result["events"] for result in results} == {chosen.events}
                rate, cpu, mib = (
                    statistics.median(result[name] for result in results)
                    for name in ("per_second", "cpu", "mib")
                )
                rates[who] = rate
                label = "this package" if who == "ours" else "plain loop"
                print(f"{form:<6}{label:<14}{rate:>10,.0f}{cpu:>9.1f}{mib:>10,.0f}")
            print(f"{'':<6}{'ratio':<14}{rates['ours'] / rates['plain']:>10.2f}")


if __name__ == "__main__":
    main()
