"""What happens to files where a writer fails, or a store is not what it should be."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
from fsspec import AbstractFileSystem, register_implementation
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile
from upath import UPath

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.ledger_folder import LedgerFolder, files


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


@pytest.mark.parametrize("write", ["write_new", "write_whole"])
def test_the_folders_of_a_new_file_are_on_the_disk_too(tmp_path, source, monkeypatch, write):
    synced, fsync = [], os.fsync

    def note(descriptor):
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    target = tmp_path / "a" / "b" / "file"
    storage.write_new(target, b"x") if write == "write_new" else storage.write_whole(target, source)
    assert [synced[0], synced[1], synced[-1]] == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


KILLED_AT = """
import os, signal, sys
from pathlib import Path
from airflow_provider_heapbraze import storage
step, folder, write = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
module, name = (os, step.removesuffix("+"))
original = getattr(Path if name == "replace" else os, name)
def die(*args):
    if step.endswith("+"):
        original(*args)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(Path if name == "replace" else os, name, die)
if write == "new":
    storage.write_new(folder / "file", b"newer")
else:
    source = folder.parent / "source"
    source.write_bytes(b"newer")
    storage.write_whole(folder / "file", source)
"""


@pytest.mark.parametrize(
    ("write", "step", "seen"),
    [
        ("new", "fsync", []),
        ("new", "link", []),
        ("new", "link+", [b"newer"]),
        ("whole", "fsync", [b"older"]),
        ("whole", "replace", [b"older"]),
        ("whole", "replace+", [b"newer"]),
    ],
)
def test_a_writer_that_is_killed_leaves_the_old_or_the_new(tmp_path, write, step, seen):
    folder = tmp_path / "log"
    folder.mkdir()
    if write == "whole":
        (folder / "file").write_bytes(b"older")
    done = subprocess.run([sys.executable, "-c", KILLED_AT, step, str(folder), write], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")] == seen


def test_what_a_killed_writer_left_is_no_record(tmp_path):
    record = LedgerFolder(tmp_path / "target", way_on="go on.")
    record.take_place(1, {"kind": "plan"})
    for name in (".0123.tmp", ".00000002.json.tmp"):
        record.path(f"log/{name}").write_bytes(b"")
    assert record.last_number() == 1
    assert [path.name for path in files(record.path("log"))] == ["00000001.json"]


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_disk_without_hard_links(tmp_path, monkeypatch, refusal):
    def refuse_link(*_):
        raise OSError(refusal, "no hard links")

    monkeypatch.setattr(os, "link", refuse_link)
    monkeypatch.setattr(storage, "SETTLE_SECONDS", 0)
    storage.write_new(tmp_path / "file", b"first")
    with pytest.raises(FileExistsError):
        storage.write_new(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert names(tmp_path) == ["file"]


def test_a_disk_that_cannot_sync_a_folder(tmp_path, source, monkeypatch):
    fsync = os.fsync

    def only_files(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise OSError(errno.EINVAL, "not for folders")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    storage.write_new(tmp_path / "new" / "file", b"x")
    storage.write_whole(tmp_path / "whole" / "file", source)
    assert (tmp_path / "whole" / "file").read_bytes() == b"whole"


class BlockStore(AbstractFileSystem):
    """A store whose client collects what is written in blocks and sends it when a file is closed, as s3fs."""

    protocol = "blockstore"
    objects: dict = {}  # noqa: RUF012 - a store is shared by all its clients
    fail_parts = 0

    def _open(self, path, mode="rb", block_size=5, autocommit=True, cache_options=None, **kwargs):
        path = self._strip_protocol(path)
        return BlockFile(self, path, mode, block_size=block_size, size=len(self.objects.get(path, b"")))

    def info(self, path, **kwargs):
        path = self._strip_protocol(path)
        if path not in self.objects:
            raise FileNotFoundError(path)
        return {"name": path, "size": len(self.objects[path]), "type": "file"}

    def ls(self, path, detail=True, **kwargs):
        return [self.info(name) if detail else name for name in self.objects]


class BlockFile(AbstractBufferedFile):
    def _initiate_upload(self):
        self.parts = []

    def _upload_chunk(self, final=False):
        if self.fs.fail_parts:
            self.parts.append(self.buffer.getvalue()[:5])
            self.fs.fail_parts -= 1
            raise TimeoutError("the store does not answer")
        self.parts.append(self.buffer.getvalue())
        if final:
            if "x" in self.mode and self.path in self.fs.objects and self.loc:
                raise FileExistsError(self.path)
            self.fs.objects[self.path] = b"".join(self.parts)
        return True

    def _fetch_range(self, start, end):
        return self.fs.objects[self.path][start:end]


@pytest.fixture
def block_store():
    register_implementation("blockstore", BlockStore, clobber=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # universal-pathlib: it does not know this one
        folder = UPath("blockstore://bucket/log")
    yield folder
    BlockStore.objects.clear()
    BlockStore.fail_parts = 0


def test_a_record_goes_to_a_store_by_one_put(block_store, monkeypatch):
    sent, upload = [], BlockFile._upload_chunk
    monkeypatch.setattr(
        BlockFile, "_upload_chunk", lambda file, final=False: (sent.append(final), upload(file, final))[1]
    )
    storage.write_new(block_store / "1.json", b"x" * 6 * 2**20)
    assert sent == [True]
    with pytest.raises(FileExistsError):
        storage.write_new(block_store / "1.json", b"other")
    assert (block_store / "1.json").read_bytes() == b"x" * 6 * 2**20


def test_a_put_that_fails_leaves_nothing(block_store):
    BlockStore.fail_parts = 1
    with pytest.raises(TimeoutError):
        storage.write_new(block_store / "1.json", b"a record")
    assert BlockStore.objects == {}


def test_a_writer_that_is_interrupted_puts_nothing_over_what_is_there(block_store, monkeypatch):
    """Closed empty, a file of s3fs is put without its condition: it would empty another run's entry."""
    storage.write_new(block_store / "1.json", b"theirs")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(BlockFile, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        storage.write_new(block_store / "1.json", b"ours")
    assert BlockStore.objects == {"bucket/log/1.json": b"theirs"}


def test_a_store_without_create_if_absent_where_another_writes_at_the_same_moment(monkeypatch):
    monkeypatch.setattr(storage, "SETTLE_SECONDS", 0)
    refuse(monkeypatch, NotImplementedError())
    folder = UPath(f"memory://{uuid4().hex}")
    put = MemoryFileSystem.pipe_file
    monkeypatch.setattr(
        MemoryFileSystem, "pipe_file", lambda fs, path, data: (put(fs, path, data), put(fs, path, b"theirs"))
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


@pytest.mark.parametrize(("version", "waits"), [("2025.5.1", [storage.SETTLE_SECONDS]), ("2025.7.0", [])])
def test_an_s3fs_that_overwrites_is_not_trusted(monkeypatch, version, waits):
    """Before 2025.7 it took "create" for "write" where a file is small."""
    waited = []
    monkeypatch.setattr(storage, "time", SimpleNamespace(sleep=waited.append))
    monkeypatch.setattr(storage.metadata, "version", {"s3fs": version}.get)
    monkeypatch.setattr(MemoryFileSystem, "__module__", "s3fs.core")
    path = UPath(f"memory://{uuid4().hex}/log/00000001.json")
    storage.write_new(path, b"first")
    assert waited == waits
    with pytest.raises(FileExistsError):
        storage.write_new(path, b"second")
