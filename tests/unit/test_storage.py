"""Files are seen whole or not at all, on a local disk and in an object store."""

from __future__ import annotations

import threading
from pathlib import Path
from uuid import uuid4

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath

from airflow_provider_heapbraze import storage


@pytest.fixture(params=["pathlib", "universal-pathlib, local", "object store"])
def folder(request, tmp_path):
    if request.param == "pathlib":
        return tmp_path
    if request.param == "object store":
        return UPath(f"memory://bucket-{uuid4().hex}")
    return UPath(tmp_path.as_uri())


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_is_written_once(folder):
    path = folder / "log" / "1.json"
    storage.write_new(path, b"first")
    with pytest.raises(FileExistsError):
        storage.write_new(path, b"second")
    assert path.read_bytes() == b"first"
    assert names(folder / "log") == ["1.json"], "no temporary file is left"


def test_of_many_writers_one_gets_the_place(tmp_path):
    path, taken = tmp_path / "log" / "1.json", []
    start = threading.Barrier(8)

    def write(number):
        start.wait()
        try:
            storage.write_new(path, str(number).encode())
        except FileExistsError:
            return
        taken.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [str(number).encode() for number in taken] == [path.read_bytes()]


def test_a_whole_file_takes_the_place_of_the_old_one(folder, tmp_path):
    source, path = tmp_path / "source", folder / "sets" / "1.parquet"
    for content in (b"old", b"new"):
        source.write_bytes(content)
        storage.write_whole(path, source)
    assert path.read_bytes() == b"new"
    assert names(folder / "sets") == ["1.parquet"]
    with storage.local_copy(path) as copy:
        assert isinstance(copy, Path)
        assert copy.read_bytes() == b"new"


def test_a_folder_is_listed_with_the_sizes_of_its_files(folder):
    for name, content in (
        ("a.zip", b""),
        ("b c%20.zip", b"four"),
        (".hidden", b"x"),
        ("deeper/d.zip", b"no"),
    ):
        path = folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    found = sorted(storage.listed(folder / "files"), key=lambda entry: entry[0].name)
    assert [(path.name, size) for path, size in found] == [(".hidden", 1), ("a.zip", 0), ("b c%20.zip", 4)]
    assert found[2][0].read_bytes() == b"four"
    assert storage.uri(found[2][0].parent) == storage.uri(folder / "files")


def test_where_there_is_no_folder_nothing_is_listed(folder):
    assert storage.listed(folder / "missing" / "folder") == []


def test_a_folder_is_listed_by_one_request_and_as_it_is_now(monkeypatch):
    folder = UPath(f"memory://bucket-{uuid4().hex}/files")
    for name in ("a.zip", "b.zip"):
        (folder / name).write_bytes(b"x")
    asked, ls = [], MemoryFileSystem.ls
    monkeypatch.setattr(
        MemoryFileSystem, "ls", lambda fs, path, **how: (asked.append(path), ls(fs, path, **how))[1]
    )
    monkeypatch.setattr(MemoryFileSystem, "invalidate_cache", lambda _, path=None: asked.append("forget"))
    monkeypatch.setattr(MemoryFileSystem, "info", None)
    assert len(storage.listed(folder)) == 2
    assert asked == ["forget", folder.path]


def test_a_store_without_create_if_absent(monkeypatch):
    path = UPath(f"memory://bucket-{uuid4().hex}/log/1.json")
    plain_open = type(path.fs).open

    def without_exclusive(self, name, mode="rb", **options):
        if mode == "xb":
            raise ValueError("mode not supported")
        return plain_open(self, name, mode, **options)

    monkeypatch.setattr(type(path.fs), "open", without_exclusive)
    monkeypatch.setattr(storage, "SETTLE_SECONDS", 0)
    storage.write_new(path, b"first")
    with pytest.raises(FileExistsError):
        storage.write_new(path, b"second")
    assert path.read_bytes() == b"first"


def test_locations_are_what_object_storage_reads(tmp_path):
    place = tmp_path / "a folder %20"
    assert storage.uri(place) == f"file://{place}"
    assert storage.uri(UPath("memory://bucket/key")) == "memory://bucket/key"
    assert storage.local(UPath(storage.uri(place))) == place


def test_a_file_has_no_files_in_it(tmp_path):
    for root in (tmp_path, UPath(f"memory://bucket-{uuid4().hex}")):
        file = root / "day" / "file"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"1")
        assert storage.listed(file) == []


def test_what_is_removed_while_it_is_listed_is_passed_over(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / name).write_bytes(b"1")
    is_file = Path.is_file

    def gone(path):
        there = is_file(path)
        if path.name == "b":
            path.unlink()
        return there

    monkeypatch.setattr(Path, "is_file", gone)
    assert sorted(path.name for path, _ in storage.listed(tmp_path)) == ["a", "c"]
