"""The exporting process is killed, again and again; every event is in Heap once, and went twice at most."""

from __future__ import annotations

import multiprocessing
import os
import random

from airflow_provider_heapbraze.clients.event_budget import EventLimits
from tests.currents import samples
from tests.unit.events.exporting import Place, run_in_a_process

CUSTOM = "users.behaviors.CustomEvent"
KILLS = int(os.environ.get("HEAPBRAZE_KILLS", "20"))
EVENTS = 320 * KILLS  # more than are sent before the last of them
LIMITS = {"heap": {"limit": 500, "seconds": 0.5}, "heap_identity": {"limit": 100, "seconds": 0.5}}


def test_killed_at_random_moments(heapbraze_sandbox, tmp_path):
    (tmp_path / "source").mkdir()
    heapbraze_sandbox.settings(limits=LIMITS)
    place = Place(heapbraze_sandbox.url, tmp_path, limits=EventLimits(500, 100, 0.5))
    records = list(samples.numbered(EVENTS, hot="hot-private-person", share=0.1))
    for number in range(8):
        part = records[number * EVENTS // 8 : (number + 1) * EVENTS // 8]
        samples.write_avro(tmp_path / "source" / f"{number}.avro", samples.schema(CUSTOM), part, "snappy")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.unit.events.exporting", "fastavro", "pyarrow.parquet"])
    moments = random.Random(20261124)
    killed = 0
    while killed < KILLS:
        process = context.Process(target=run_in_a_process, args=(place, f"run-{killed // 5}"))
        process.start()
        process.join(moments.uniform(0.1, 0.45))
        assert process.exitcode is None, "it must not be finished before it is killed"
        process.kill()
        process.join()
        killed += 1
    before = heapbraze_sandbox.state()["heap"]["events"]
    assert 0 < before < EVENTS
    report = place.run("last-run")
    assert heapbraze_sandbox.state()["heap"]["events"] == EVENTS
    sends = heapbraze_sandbox.heap_sends()
    assert max(sends) <= 2, sends
    assert heapbraze_sandbox.state()["limits_broken"] == {}
    assert report["duplicates"] == 0
