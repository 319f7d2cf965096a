"""What happens to files where a writer fails, or a store is not what it should be."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from uuid import uuid4

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath

from airflow_provider_heapbraze import storage


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "source"
    file.write_bytes(b"whole")
    return file


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("step", ["os.fsync", "os.link"])
def test_a_new_file_that_fails_leaves_nothing(tmp_path, source, monkeypatch, step):
    fail_at(monkeypatch, step, tmp_path)
    with pytest.raises(OSError, match="No space left"):
        storage.write_new(tmp_path / "new", b"x")
    assert names(tmp_path) == ["source"]


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace", "shutil.copyfile"])
def test_a_replacement_that_fails_leaves_what_was_there(tmp_path, source, monkeypatch, step):
    storage.write_whole(tmp_path / "file", source)
    source.write_bytes(b"newer")
    fail_at(monkeypatch, step, tmp_path)
    with pytest.raises(OSError, match="No space left"):
        storage.write_whole(tmp_path / "file", source)
    assert names(tmp_path) == ["file", "source"]
    assert (tmp_path / "file").read_bytes() == b"whole"


def fail_at(monkeypatch, step, folder):
    """Make a step fail, and look that what is unfinished by then has a hidden name."""

    def fail(*args, **kwargs):
        assert [name for name in names(folder) if not name.startswith(".")] == before
        raise OSError(errno.ENOSPC, "No space left on device")

    before = names(folder)
    monkeypatch.setattr(step, fail)


def test_a_file_is_on_the_disk_before_its_name_is(tmp_path, source, monkeypatch):
    steps = []
    fsync, link, replace = os.fsync, os.link, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (steps.append("sync"), fsync(descriptor)))
    monkeypatch.setattr(os, "link", lambda *a: (steps.append("name"), link(*a)))
    monkeypatch.setattr(Path, "replace", lambda *a: (steps.append("name"), replace(*a)))
    storage.write_new(tmp_path / "new", b"x")
    storage.write_whole(tmp_path / "whole", source)
    assert steps == ["sync", "name", "sync"] * 2


def test_a_store_without_create_if_absent_where_another_writes_at_the_same_moment(monkeypatch):
    monkeypatch.setattr(storage, "SETTLE_SECONDS", 0)
    refuse(monkeypatch, NotImplementedError())
    folder = UPath(f"memory://{uuid4().hex}")
    write = type(folder).write_bytes
    monkeypatch.setattr(
        type(folder), "write_bytes", lambda path, data: (write(path, data), write(path, b"theirs"))
    )
    with pytest.raises(FileExistsError):
        storage.write_new(folder / "a", b"ours")


def test_a_store_that_refuses_without_saying_why(monkeypatch):
    """MinIO, for one: 412 is EINVAL to s3fs where the answer does not name the condition."""
    folder = UPath(f"memory://{uuid4().hex}")
    (folder / "taken").write_bytes(b"theirs")
    refuse(monkeypatch, OSError(errno.EINVAL, "precondition failed"))
    with pytest.raises(FileExistsError):
        storage.write_new(folder / "taken", b"ours")
    with pytest.raises(OSError, match="precondition failed") as caught:
        storage.write_new(folder / "free", b"ours")
    assert not isinstance(caught.value, FileExistsError)


def refuse(monkeypatch, error):
    """Make the store refuse to create a file."""
    opened = MemoryFileSystem._open

    def open_(self, path, mode="rb", **kwargs):
        if "x" in mode:
            raise error
        return opened(self, path, mode=mode, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "_open", open_)


def test_a_path_in_an_object_store_may_be_a_pathlib_path(tmp_path):
    """So it is with universal-pathlib before 0.3, which Airflow 3.1 comes with."""

    class RemotePath(type(tmp_path)):
        protocol = "s3"

    assert storage.local(RemotePath("bucket/key")) is None
    assert storage.local(tmp_path) == tmp_path
