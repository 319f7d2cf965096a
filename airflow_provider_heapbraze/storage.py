"""Files that a reader sees whole or not at all, on local disks and in object stores.

Paths have pathlib's interface: ``pathlib.Path``, or a path of universal-pathlib such as Airflow's
``ObjectStoragePath``. Temporary files have names that begin with a dot; readers pass over them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCAL_PROTOCOLS = {"", "file", "local"}
# Another writer who looked at the same moment has written by then.
SETTLE_SECONDS = 2.0


def local(path: Any) -> Path | None:
    """Return the path on the local disk, or None where it is in an object store."""
    if hasattr(path, "protocol"):  # older ones of universal-pathlib are a pathlib.Path, too
        return Path(path.path) if path.protocol in LOCAL_PROTOCOLS else None
    return Path(path)


def uri(path: Any) -> str:
    """Return a path's location as Airflow's object storage reads it, which takes a ``%`` as it is."""
    here = local(path)
    return str(path) if here is None else f"file://{here.absolute()}"


def write_new(path: Any, data: bytes) -> None:
    """Write a file that must not be there yet.

    Two writers at the same moment: one gets :class:`FileExistsError`. On a local disk by a hard link, in an
    object store by its create-if-absent. A store without that gets the best effort: look, write, wait, read
    back. A file that holds the very same is taken for ours: a store's client that repeats a request whose
    answer was lost meets its own file.

    :param data: different from what any other writer would write.
    :raises FileExistsError: the file is there, and holds something else.
    """
    try:
        _create(path, data)
    except FileExistsError:
        refresh(path.parent)
        if path.read_bytes() != data:
            raise


def _create(path: Any, data: bytes) -> None:
    target = local(path)
    if target is not None:
        with _beside(target) as temporary:
            temporary.write_bytes(data)
            _flush(temporary)
            os.link(temporary, target)
        _flush(target.parent)
        return
    try:
        _create_in_store(path, data)
    except (NotImplementedError, ValueError):
        _write_where_absent(path, data)
    refresh(path.parent)


def write_whole(path: Any, source: Path) -> None:
    """Put a finished local file in place, so that a reader sees the old or the new, never half."""
    target = local(path)
    if target is not None:
        with _beside(target) as temporary:
            shutil.copyfile(source, temporary)
            _flush(temporary)
            temporary.replace(target)
        _flush(target.parent)
        return
    path.fs.put_file(str(source), path.path)
    refresh(path.parent)


@contextmanager
def local_copy(path: Any) -> Iterator[Path]:
    """Give a file on the local disk: the file itself, or a copy for as long as the context lasts."""
    here = local(path)
    if here is not None:
        yield here
        return
    with tempfile.TemporaryDirectory(prefix="heapbraze-") as folder:
        yield fetched(path, Path(folder))


def fetched(path: Any, folder: Path) -> Path:
    """Return a file on the local disk: the file itself, or a copy in this folder."""
    here = local(path)
    if here is not None:
        return here
    copy = folder / f"{uuid4().hex}-{path.name}"
    path.fs.get_file(path.path, str(copy))
    return copy


def listed(folder: Any) -> list[tuple[Any, int]]:
    """Return the files in a folder with their sizes, by one request; none where there is no folder."""
    refresh(folder)
    here = local(folder)
    try:
        if here is not None:
            return [(path, path.stat().st_size) for path in here.iterdir() if path.is_file()]
        entries = folder.fs.ls(folder.path, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    # Some stores list a file, and a folder's own marker, as what is in it.
    own = folder.path.strip("/")
    files = [entry for entry in entries if entry["type"] == "file" and entry["name"].strip("/") != own]
    return [(folder / entry["name"].rpartition("/")[2], int(entry["size"] or 0)) for entry in files]


def changed_at(path: Any) -> datetime:
    """Return when a file was last written, UTC; the present, where its store does not say."""
    seconds = path.stat().st_mtime
    return datetime.fromtimestamp(seconds, UTC) if seconds else datetime.now(UTC)


def refresh(folder: Any) -> None:
    """Forget what was listed before: some stores' clients remember folders, and other workers write there."""
    if local(folder) is None:
        folder.fs.invalidate_cache(folder.path)


def _create_in_store(path: Any, data: bytes) -> None:
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        raise
    except OSError:
        # Stores that speak S3 without being S3 refuse, but do not say why.
        refresh(path.parent)
        if path.exists():
            raise FileExistsError from None
        raise


def _write_where_absent(path: Any, data: bytes) -> None:
    refresh(path.parent)
    if path.exists():
        raise FileExistsError
    path.write_bytes(data)
    time.sleep(SETTLE_SECONDS)
    refresh(path.parent)
    if path.read_bytes() != data:
        raise FileExistsError


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Give a temporary name in the same folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid4().hex}.tmp")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
