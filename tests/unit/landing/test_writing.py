"""Deliveries share writes; what cannot be written is said, and nothing half-written can be seen."""

from __future__ import annotations

import errno
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.landing import quarantine, writer
from tests.unit.landing.receiving import batch, files, landed, page, quarantined, signed, wait_until


@pytest.fixture
def memory():
    """A folder in an object store."""
    path = UPath(f"memory://{uuid4().hex}/landing")
    yield path
    path.fs.rm(str(path.parent), recursive=True)


@pytest.fixture
def dam(monkeypatch):
    """Writes to the object store stop at it until it is opened; it can be for some paths only."""

    one = SimpleNamespace(open=threading.Event(), before="", written=[])
    put = MemoryFileSystem.pipe_file

    def pipe_file(fs, path, value, **others):
        if one.before in path:
            assert one.open.wait(60)
        put(fs, path, value, **others)
        one.written.append(len(value.splitlines()))

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", pipe_file)
    yield one
    one.open.set()


@pytest.fixture
def threads():
    with ThreadPoolExecutor(32) as pool:
        yield pool


def stored(path):
    found = [file for file in path.rglob("*") if file.is_file()]
    return [json.loads(line) for file in found for line in file.read_bytes().splitlines()]


def test_an_object_store_gets_the_same_layout(receiving, memory, tmp_path):
    for path in (memory, tmp_path):
        receiver = receiving(path)
        receiver.heap(page())
        receiver.braze(batch("id-1"))
    folders = [
        {"/".join(file.parts[-4:-1]) for file in path.rglob("*.ndjson")} for path in (memory, tmp_path)
    ]
    assert folders[0] == folders[1]
    assert sorted(map(str, stored(memory))) == sorted(map(str, landed(tmp_path)))


def test_what_comes_during_a_write_shares_the_next_one(receiving, memory, dam, threads):
    receiver = receiving(memory)
    answers = [threads.submit(receiver.braze, batch("id-0"))]
    receiver.wait_until_open(1)
    answers += [threads.submit(receiver.braze, batch(f"id-{number}")) for number in range(1, 21)]
    receiver.wait_until_open(21)
    dam.open.set()
    assert [answer.result().status_code for answer in answers] == [200] * 21
    # Of the first write none but the first delivery is sure: others may have come while it gathered.
    assert len(dam.written) <= 2
    assert sum(dam.written) == 21
    ids = sorted(event["id"] for line in stored(memory) for event in line["events"])
    assert ids == sorted(f"id-{number}" for number in range(21))
    assert receiver.metric("heapbraze_landing_deliveries_per_write_sum") == 21


def test_a_file_does_not_grow_without_end(receiving, memory, dam, threads, monkeypatch):
    monkeypatch.setattr(writer, "WRITE_BYTES", 1_000)
    receiver = receiving(memory)
    answers = [threads.submit(receiver.braze, batch("x" * 600)) for number in range(8)]
    receiver.wait_until_open(8)
    dam.open.set()
    assert {answer.result().status_code for answer in answers} == {200}
    assert max(dam.written) == 2


def test_streams_do_not_wait_behind_each_other(receiving, memory, dam, threads):
    dam.before = "/slow/"
    receiver = receiving(memory)
    behind = threads.submit(receiver.braze, batch("id-1"), source="slow")
    receiver.wait_until_open(1)
    assert receiver.braze(batch("id-2"), source="quick").status_code == 200
    assert receiver.heap(page()).status_code == 200
    assert not behind.done()
    dam.open.set()
    assert behind.result().status_code == 200


def test_a_store_that_hangs_is_said_and_nothing_piles_up_behind_it(
    receiving, memory, dam, threads, monkeypatch
):
    monkeypatch.setattr(writer, "WRITE_SECONDS", 0.05)
    receiver = receiving(memory)
    hanging = [threads.submit(receiver.braze, batch("id-1"), source=f"s{number}") for number in range(20)]
    answers = [answer.result() for answer in hanging]
    assert {(answer.status_code, answer.headers["Retry-After"]) for answer in answers} == {(503, "10")}
    monkeypatch.setattr(writer, "WRITE_SECONDS", 3_600)  # nobody waits so long for the refusal
    assert receiver.heap(page()).status_code == 503
    ready = receiver.client.get("/ready")
    assert (ready.status_code, ready.json()["reason"]) == (
        503,
        "The landing path cannot be written (TimeoutError).",
    )
    dam.open.set()
    wait_until(lambda: receiver.heap(page()).status_code == 200)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "private"), RuntimeError("private"), ValueError()])
def test_a_store_that_fails_is_said_and_comes_back(receiving, memory, monkeypatch, caplog, error):
    receiver = receiving(memory)

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(MemoryFileSystem, "pipe_file", fail)
        answers = [receiver.heap(page()), receiver.braze(batch("id-1"))]
    assert [(answer.status_code, answer.headers["Retry-After"]) for answer in answers] == [(503, "10")] * 2
    assert stored(memory) == []
    assert receiver.metric("heapbraze_landing_writes_total", outcome="failed") == 2
    assert "private" not in caplog.text
    assert receiver.heap(page()).status_code == 200
    assert len(stored(memory)) == 1


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_disk_that_fails_at_any_step_leaves_nothing(receiver, tmp_path, monkeypatch, step):
    receiver.heap(page())  # the folders are made, and their names are durable

    def fail(*_, **__):
        raise OSError(errno.EIO, "private")

    with monkeypatch.context() as broken:
        broken.setattr(os if step == "fsync" else Path, step, fail)
        assert receiver.heap(page(members=["second"])).status_code == 503
    assert len(landed(tmp_path)) == 1
    assert receiver.heap(page(members=["third"])).status_code == 200
    assert len(landed(tmp_path)) == 2


def test_file_and_every_folder_on_the_way_are_flushed_before_the_answer(receiver, tmp_path, monkeypatch):
    flushed = []
    flush = os.fsync

    def fsync(descriptor):
        flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert receiver.heap(page()).status_code == 200
    [file] = files(tmp_path)
    temporary, folder = flushed[-2:]
    assert (Path(temporary).parent, folder) == (file.parent, str(file.parent))
    assert Path(temporary).name.startswith(f".{file.name}.")
    assert {str(folder) for folder in file.parents if folder.is_relative_to(tmp_path)} <= set(flushed)
    flushed.clear()
    assert receiver.heap(page()).status_code == 200
    assert len(flushed) == 2


def test_a_folder_that_was_removed_is_made_again(receiver, tmp_path):
    receiver.heap(page())
    [file] = files(tmp_path)
    file.unlink()
    file.parent.rmdir()
    assert receiver.heap(page()).status_code == 200
    assert len(landed(tmp_path)) == 1


def test_names_are_numbered_and_never_the_same(receiver, tmp_path):
    for number in range(5):
        receiver.heap(page(number=number), signed(page(number=number)))
    names = [file.stem.split("-") for file in files(tmp_path)]
    assert [number for _, _, number in names] == [f"{number:08d}" for number in range(1, 6)]
    assert len({process for _, process, _ in names}) == 1


def test_what_is_not_understood_lands_in_an_object_store_as_well(receiving, memory):
    receiver = receiving(memory)
    assert receiver.heap(b"no JSON").status_code == 200
    assert [file.read_bytes() for file in memory.rglob("*.body")] == [b"no JSON"]


def test_what_is_not_understood_and_comes_again_is_there_once(receiver, tmp_path):
    assert {receiver.braze(b"no JSON").status_code for _ in range(3)} == {200}
    assert quarantined(tmp_path / "landing") == [("quarantine/braze/main", b"no JSON")]


def test_what_a_kill_left_behind_is_not_in_the_way(receiver, tmp_path):
    receiver.braze(b"no JSON")
    [file] = files(tmp_path)
    file.rename(file.with_name(f".{file.name}.tmp"))
    assert receiver.braze(b"no JSON").status_code == 200
    assert file.read_bytes() == b"no JSON"
    file.with_name(f".{file.name}.tmp").unlink()


def test_a_quarantine_that_is_full_takes_no_more(receiver, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(quarantine, "MOST_BYTES", 12)
    assert receiver.braze(b"no JSON").status_code == 200
    answer = receiver.braze(b"nor this")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert (
        receiver.metric("heapbraze_landing_deliveries_total", route="braze", outcome="quarantine_full") == 1
    )
    [line] = [line for line in caplog.messages if "503" in line]
    assert "A delivery by braze got 503: Its body of 8 bytes is not understood" in line
    assert "quarantine/braze of the landing path holds 1 files of 7 bytes, and may hold 12 bytes" in line
    assert "move them away" in line
    assert "Nothing was written." in line
    assert receiver.braze(b"no JSON").status_code == 200, "it is there already"
    assert receiver.braze(batch("id-1")).status_code == 200
    assert receiver.heap(b"nor this").status_code == 200, "a folder for each"
    [file] = (tmp_path / "landing" / "quarantine" / "braze" / "main").iterdir()
    file.unlink()
    receiver.clock.milliseconds += 10_000
    assert receiver.braze(b"nor this").status_code == 200


def test_a_quarantine_holds_so_many_files(receiving, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(quarantine, "MOST_FILES", 3)
    receiver = receiving(tmp_path / "landing")
    bodies = [b"no JSON %d" % number for number in range(4)]
    assert [receiver.heap(body).status_code for body in bodies] == [200, 200, 200, 503]
    assert "quarantine/heap of the landing path holds 3 files of 27 bytes, and may hold 3 files" in (
        caplog.text
    )
    assert [receiver.heap(body).status_code for body in bodies[:3]] == [200] * 3, "they are there already"
    receiver = receiving(tmp_path / "landing")
    assert receiver.heap(bodies[3]).status_code == 503, "what was there before counts, too"
    assert receiver.metric("heapbraze_landing_deliveries_total", route="heap", outcome="quarantine_full") == 1
    assert len(quarantined(tmp_path / "landing")) == 3


def test_a_quarantine_is_not_listed_for_every_body(receiver, tmp_path, monkeypatch):
    looks = []
    listed = storage.listed

    def look(folder):
        looks.append(folder)
        return listed(folder)

    monkeypatch.setattr(storage, "listed", look)
    for number in range(20):
        assert receiver.braze(b"no JSON %d" % number).status_code == 200
    assert len(looks) == 1
    receiver.clock.milliseconds += 10_000
    assert receiver.braze(b"no JSON").status_code == 200
    assert len(looks) == 2, "a person, or another process, may have been there"
    assert len(quarantined(tmp_path / "landing")) == 21


def test_what_could_not_be_written_takes_no_room_in_the_quarantine(receiver, tmp_path, monkeypatch):
    monkeypatch.setattr(quarantine, "MOST_FILES", 1)

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "private")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        assert receiver.heap(b"no JSON").status_code == 503
    assert receiver.heap(b"nor this").status_code == 200
    assert quarantined(tmp_path / "landing") == [("quarantine/heap", b"nor this")]


def test_those_who_come_together_do_not_pass_the_limit_of_a_quarantine(
    receiving, memory, dam, threads, monkeypatch
):
    monkeypatch.setattr(quarantine, "MOST_FILES", 3)
    receiver = receiving(memory)
    answers = [threads.submit(receiver.braze, b"no JSON %d" % number) for number in range(8)]
    wait_until(lambda: sum(answer.done() for answer in answers) == 5)
    dam.open.set()
    assert sorted(answer.result().status_code for answer in answers) == [200] * 3 + [503] * 5
    assert len(list(memory.rglob("*.body"))) == 3


def test_what_is_not_understood_and_cannot_be_written_comes_again(receiver, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "private")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        answers = [receiver.braze(b"no JSON"), receiver.heap(b"no JSON")]
    assert [(answer.status_code, answer.headers["Retry-After"]) for answer in answers] == [(503, "10")] * 2
    assert receiver.metric("heapbraze_landing_writes_total", outcome="failed") == 2
    assert files(tmp_path) == []
