"""Every kind of file of a source's ledger, damaged in every way: a run stops, or Heap has all of it once."""

from __future__ import annotations

import random

import pytest

from airflow_provider_heapbraze.clients.errors import TransientError
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError
from tests.currents import samples
from tests.unit.events.exporting import Place

CUSTOM = "users.behaviors.CustomEvent"
EVENTS = 60


def missing(file):
    file.unlink()


def emptied(file):
    file.write_bytes(b"")


def truncated(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def garbage(file):
    file.write_bytes(random.Random(1).randbytes(file.stat().st_size))


UNREADABLE = [emptied, truncated, garbage]
BOTH = [missing, *UNREADABLE]
# The first run came to its end with entry 2; the second claimed with entry 3, and did not.
STOPS = {
    "log/00000003.json": BOTH,
    "log/00000002.json": BOTH,
    "progress/00000003-*.json": UNREADABLE,
    "states/00000002-*.json": BOTH,
    "done/00000002-*.parquet": BOTH,
    "ids/00000002-*.parquet": BOTH,
}
NOT_NEEDED = ["log/00000001.json", "progress/00000001-*.json", "reports/*.json", "source.json"]


@pytest.fixture
def place(heapbraze_sandbox, tmp_path):
    """Leave a run that was finished, and one that sent a part of the rest."""
    (tmp_path / "source").mkdir()
    place = Place(heapbraze_sandbox.url, tmp_path)
    records = list(samples.numbered(EVENTS))
    write(tmp_path, 0, records[: EVENTS // 2])
    place.run("run-1")
    write(tmp_path, 1, records[EVENTS // 2 :])
    heapbraze_sandbox.faults(next=[{"count": 20, "status": 500}])
    with pytest.raises(TransientError):
        place.run("run-2")
    heapbraze_sandbox.faults()
    return place


def write(home, number, records):
    samples.write_avro(home / "source" / f"{number}.avro", samples.schema(CUSTOM), records, "null")


def folder_of(place):
    (folder,) = (place.ledger / "sources").iterdir()
    return folder


@pytest.mark.parametrize("run_id", ["run-2", "run-3"])
@pytest.mark.parametrize("pattern", STOPS)
def test_what_a_run_needs(place, heapbraze_sandbox, pattern, run_id):
    file = max(folder_of(place).glob(pattern))
    name, whole, sent = (
        str(file.relative_to(folder_of(place))),
        file.read_bytes(),
        heapbraze_sandbox.heap_sends(),
    )
    for damage in STOPS[pattern]:
        damage(file)
        with pytest.raises(LedgerDamagedError) as caught:
            place.run(run_id)
        assert heapbraze_sandbox.heap_sends() == sent, f"{damage.__name__}: nothing may be sent on its word"
        said = str(caught.value)
        assert name in said or f"entry {int(name[4:12])} of the log is missing" in said
        assert "remove the folder: the export then begins anew" in said
        file.write_bytes(whole)
    place.run(run_id)
    assert heapbraze_sandbox.state()["heap"]["events"] == EVENTS


@pytest.mark.parametrize("damage", BOTH)
def test_what_no_run_needs(place, heapbraze_sandbox, damage):
    for pattern in NOT_NEEDED:
        for file in folder_of(place).glob(pattern):
            damage(file)
    place.run("run-3")
    assert heapbraze_sandbox.state()["heap"]["events"] == EVENTS


def test_progress_that_is_lost_is_sent_again_and_dropped_by_heap(place, heapbraze_sandbox):
    for file in folder_of(place).glob("progress/*"):
        file.unlink()
    place.run("run-3")
    assert heapbraze_sandbox.state()["heap"]["events"] == EVENTS
