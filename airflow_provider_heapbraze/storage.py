"""Files that a reader sees whole or not at all, on local disks and in object stores.

Paths have pathlib's interface: ``pathlib.Path``, or a path of universal-pathlib such as Airflow's
``ObjectStoragePath``. What a reader may count on, and of two writers of one name:

=====================  ==========================================  ====================================
storage                a file is seen                              :func:`write_new`, two at a moment
=====================  ==========================================  ====================================
local disk, NFS        whole and durable: written beside, synced,  one: by a hard link
                       then named; its folders are synced, too
local, without hard    the same                                    best effort
links (SMB, gcsfuse)
S3, GCS, Azure         when the one put ends; of a large file,     one: by create-if-absent (on S3
                       when its last request puts the parts        from s3fs 2025.7 on)
                       together
S3 of others, without  the same                                    best effort
create-if-absent
sftp, hdfs and others  perhaps while it is written: whoever reads  best effort
                       half of it finds it damaged, and stops
=====================  ==========================================  ====================================

*Best effort*: look, write, wait, read back. What a killed writer leaves behind is never seen as a file: on a
local disk its name begins with a dot, and readers pass over it; in an object store it is the parts of an
unfinished upload, which no listing shows (a lifecycle rule of the bucket removes them).
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_heapbraze.scratch import scratch_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FIRST_EXCLUSIVE_S3FS = (2025, 7)  # those before take "x" for "w" where a file is small
LOCAL_PROTOCOLS = {"", "file", "local"}
# Another writer who looked at the same moment has written by then.
SETTLE_SECONDS = 2.0
# What file systems say that have no hard links, or cannot sync a folder.
NOT_SUPPORTED = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})
LEAST_BLOCK = 5 * 2**20  # of s3fs


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

    Two writers at the same moment: one gets :class:`FileExistsError`, as far as the storage can. A file that
    holds the very same is taken for ours: a store's client that repeats a request whose answer was lost meets
    its own file.

    :param data: different from what any other writer would write.
    :raises FileExistsError: the file is there, and holds something else.
    """
    try:
        _create(path, data)
    except FileExistsError:
        refresh(path.parent)
        if path.read_bytes() != data:
            raise


def write_whole(path: Any, source: Path) -> None:
    """Put a finished local file in place, so that a reader sees the old or the new, never half."""
    target = local(path)
    if target is None:
        path.fs.put_file(str(source), path.path)
        refresh(path.parent)
        return
    with _beside(target) as temporary:
        shutil.copyfile(source, temporary)
        _name(temporary, target)


def write(path: Any, data: bytes) -> None:
    """Write a small file, in the place of what has its name; a reader sees the old or the new, never half."""
    target = local(path)
    if target is None:
        path.fs.pipe_file(path.path, data)
        refresh(path.parent)
        return
    with _beside(target) as temporary:
        temporary.write_bytes(data)
        _name(temporary, target)


@contextmanager
def local_copy(path: Any) -> Iterator[Path]:
    """Give a file on the local disk: the file itself, or a copy for as long as the context lasts."""
    here = local(path)
    if here is not None:
        yield here
        return
    with scratch_folder() as folder:
        yield fetched(path, folder)


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
            return list(_with_sizes(here.iterdir()))
        entries = folder.fs.ls(folder.path, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    # Some stores list a file, and a folder's own marker, as what is in it.
    own = folder.path.strip("/")
    files = [entry for entry in entries if entry["type"] == "file" and entry["name"].strip("/") != own]
    return [(folder / entry["name"].rpartition("/")[2], int(entry["size"] or 0)) for entry in files]


def _with_sizes(paths: Iterable[Path]) -> Iterator[tuple[Path, int]]:
    for path in paths:
        with suppress(FileNotFoundError):  # it was removed since
            if path.is_file():
                yield path, path.stat().st_size


def names(folder: Any) -> list[str]:
    """Return the names of what is in a folder, in no order, by one request; none where there is no folder."""
    refresh(folder)
    here = local(folder)
    try:
        # Not as paths: of some hundred files, most of the time would go into making them.
        return os.listdir(here) if here is not None else [path.name for path in folder.iterdir()]  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):  # universal-pathlib says the latter
        return []


def changed_at(path: Any) -> datetime:
    """Return when a file was last written, UTC; the present, where its store does not say."""
    seconds = path.stat().st_mtime
    return datetime.fromtimestamp(seconds, UTC) if seconds else datetime.now(UTC)


def refresh(folder: Any) -> None:
    """Forget what was listed before: some stores' clients remember folders, and other workers write there."""
    if local(folder) is None:
        folder.fs.invalidate_cache(folder.path)


def _create(path: Any, data: bytes) -> None:
    """Write a file by the surest way that its storage has."""
    try:
        if (target := local(path)) is not None:
            _create_on_disk(target, data)
        else:
            _create_in_store(path, data)
    except (NotImplementedError, ValueError):
        _write_where_absent(path, data)


def _create_on_disk(target: Path, data: bytes) -> None:
    """Write a file and name it by a hard link, which an existing name refuses.

    :raises NotImplementedError: the file system has no hard links.
    """
    with _beside(target) as temporary:
        temporary.write_bytes(data)
        _flush(temporary)
        try:
            os.link(temporary, target)
        except OSError as error:
            if error.errno in NOT_SUPPORTED:
                raise NotImplementedError from None
            raise
    _flush_names(target.parent)


def _create_in_store(path: Any, data: bytes) -> None:
    """Put a file where there is none.

    :raises NotImplementedError, ValueError: the store's client has no create-if-absent.
    """
    if type(path.fs).__module__.startswith("s3fs.") and _version("s3fs") < FIRST_EXCLUSIVE_S3FS:
        raise NotImplementedError
    try:
        # One block, larger than the data: nothing is sent before close(), and then by one put.
        file = path.fs.open(path.path, "xb", block_size=max(LEAST_BLOCK, len(data) + 1))
        try:
            file.write(data)
        except BaseException:
            # Closed by anybody, even by the garbage collector, it would put what it has so far.
            with suppress(AttributeError):
                file.closed = True
            raise
        file.close()
    except FileExistsError:
        raise
    except OSError:
        # Stores that speak S3 without being S3 refuse, but do not say why.
        refresh(path.parent)
        if path.exists():
            raise FileExistsError from None
        raise
    refresh(path.parent)


def _version(package: str) -> tuple[int, ...]:
    return tuple(int(part) for part in metadata.version(package).split(".")[:2])


def _write_where_absent(path: Any, data: bytes) -> None:
    refresh(path.parent)
    if path.exists():
        raise FileExistsError
    write(path, data)
    time.sleep(SETTLE_SECONDS)
    refresh(path.parent)
    if path.read_bytes() != data:
        raise FileExistsError


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Give a temporary name in the same folder."""
    _make_folder(target.parent)
    temporary = target.with_name(f".{uuid4().hex}.tmp")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """Make a folder, and its name and those of the folders above it survive a power cut."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _flush_names(folder.parent)


def _name(temporary: Path, target: Path) -> None:
    """Give a finished file its name, in the place of what had it; both survive a power cut."""
    _flush(temporary)
    temporary.replace(target)
    _flush_names(target.parent)


def _flush(path: Path) -> None:
    """Make a file survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_names(folder: Path) -> None:
    """Make the names in a folder survive a power cut, where its file system can do that."""
    try:
        _flush(folder)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
