"""Write a new file so that it survives a power cut, on a local disk or in an object store."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from airflow_provider_heapbraze import storage

if TYPE_CHECKING:
    from pathlib import Path


class Store(Protocol):
    """Where deliveries are written."""

    def write(self, folder: tuple[str, ...], name: str, data: bytes) -> None:
        """Write a file; return when it is durable.

        :param folder: its names below the landing path.
        :param name: a new one, or one whose file holds the same.
        :raises Exception: whatever the disk or the store's client raises; nothing half-written can be seen.
        """

    def probe(self) -> None:
        """Write a hidden file, and remove it.

        :raises Exception: as ``write`` would.
        """


def store_at(path: Any) -> Store:
    """Return the store that a path is in."""
    here = storage.local(path)
    return ObjectStore(path) if here is None else LocalStore(here.absolute())


class LocalStore:
    """A folder of a local disk.

    A process that is killed can leave a temporary file behind; its name begins with a dot.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._made: dict[Path, Path] = {}  # the newest folder of each folder, which is durable itself

    def write(self, folder: tuple[str, ...], name: str, data: bytes) -> None:
        """Write beside, flush, rename, flush the folder."""
        target = self._path.joinpath(*folder, name)
        self._make(folder)
        # A name of its own: what a kill left behind is not in the way.
        temporary = target.with_name(f".{name}.{uuid4().hex}.tmp")
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _flush(target.parent)

    def probe(self) -> None:
        """Write a hidden file, and remove it."""
        self._make_root()
        hidden = self._path / _hidden_name()
        try:
            hidden.write_bytes(b"ready?\n")
        finally:
            hidden.unlink(missing_ok=True)

    def _make(self, folder: tuple[str, ...]) -> None:
        """Make a folder, and all names on the way durable: another thread may have made one, not flushed."""
        target = self._path.joinpath(*folder)
        if self._made.get(target.parent) == target and target.is_dir():
            return
        self._make_root()
        parent = self._path
        for name in folder:
            child = parent / name
            child.mkdir(exist_ok=True)
            _flush(parent)
            parent = child
        self._made[target.parent] = target

    def _make_root(self) -> None:
        missing = [path for path in self._path.parents if not path.exists()]
        self._path.mkdir(parents=True, exist_ok=True)
        for path in (self._path, *missing):
            with suppress(PermissionError):  # who may not read a folder did not make what is in it
                _flush(path.parent)


class ObjectStore:
    """A folder of an object store: one put per file, which is seen when it is whole."""

    def __init__(self, path: Any) -> None:
        self._path = path

    def write(self, folder: tuple[str, ...], name: str, data: bytes) -> None:
        """Put a file."""
        self._path.fs.pipe_file(self._path.joinpath(*folder, name).path, data)

    def probe(self) -> None:
        """Put a hidden file, and remove it."""
        hidden = self._path / _hidden_name()
        self._path.fs.pipe_file(hidden.path, b"ready?\n")
        self._path.fs.rm_file(hidden.path)


def _hidden_name() -> str:
    return f".ready-{uuid4().hex}"


def _flush(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
