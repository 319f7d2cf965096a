"""Which files a source has: everything below a prefix, in Braze's layout or any other."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.events.currents import normal_type

if TYPE_CHECKING:
    from collections.abc import Iterator

# Braze: Currents in storage: …/event_type=<type>/date=<YYYY-MM-DD-HH>/…
TYPE_IN_PATH = re.compile(r"(?:^|/)event_type=([^/]+)/")
HOUR_IN_PATH = re.compile(r"(?:^|/)date=(\d{4}-\d{2}-\d{2}-\d{2})/")
# Elsewhere a name may tell it: users.messages.email.Open.json, or Email_Open/…, as in Braze's examples.
TYPE_IN_NAME = re.compile(
    r"(?<![A-Za-z0-9])((?:users|agentconsole|contentoptimizer)(?:\.[a-z]+)*\.[A-Z][A-Za-z]+)"
)
NAME_AS_TYPE = re.compile(r"(?:^|/)([A-Z][A-Za-z]*(?:_[A-Z][A-Za-z]*)+)(?=[/.])")


@dataclass(frozen=True)
class SourceFile:
    """A file of a source.

    :param path: a path with pathlib's interface.
    :param name: relative to the source.
    :param size: bytes.
    :param folder: the source's own path.
    """

    path: Any
    name: str
    size: int
    folder: str = ""

    @property
    def key(self) -> int:
        """Return a number that tells this file from every other; one of another size is another file."""
        digest = hashlib.blake2b(
            f"{self.name}\0{self.size}".encode(errors="surrogateescape"), digest_size=8
        ).digest()
        return int.from_bytes(digest, "big", signed=True)

    @property
    def _place(self) -> str:
        """Return the whole path: the source may be a folder deep in Braze's layout."""
        return f"{self.folder}/{self.name}"

    @property
    def hour(self) -> str | None:
        """Return the hour, ``YYYY-MM-DD-HH`` in UTC, in which Braze queued the events; None where unsaid."""
        found = HOUR_IN_PATH.search(self._place)
        return found[1] if found else None

    @property
    def event_type(self) -> str:
        """Return the event type that the path tells; empty where it tells none."""
        for pattern in (TYPE_IN_PATH, TYPE_IN_NAME):
            found = pattern.search(self.name) or pattern.search(self._place)
            if found:
                return normal_type(found[1])
        named = NAME_AS_TYPE.search(self.name)
        return named[1] if named else ""


@dataclass(frozen=True)
class HourRange:
    """Hours of Braze's folders from ``start`` up to, but not with, ``end``; ``YYYY-MM-DD-HH`` in UTC."""

    start: str
    end: str

    def __contains__(self, hour: str) -> bool:
        return self.start <= hour < self.end


def find_files(source: Any) -> Iterator[SourceFile]:
    """Give the files below a prefix, one folder's worth in memory at a time.

    Names that begin with a dot or an underscore are passed over, and what an object store shows for a folder.

    :param source: a folder or a file.
    :raises ConfigurationError: there is nothing of this name.
    """
    storage.refresh(source)
    if source.is_file():
        yield SourceFile(source, source.name, source.stat().st_size, _text(source.parent))
        return
    if not source.is_dir():
        raise ConfigurationError(
            f"There is no folder {storage.uri(source)}. Nothing was sent. Look at source=; where Braze has "
            "written nothing yet, make the folder."
        )
    yield from _below(source, source)


def _below(folder: Any, source: Any) -> Iterator[SourceFile]:
    """List a folder; one ``event_type=`` folder, or one top folder of a prefix, at a time as a whole."""
    children = sorted(folder.iterdir(), key=lambda child: child.name)
    folders = {child.name for child in children if child.is_dir()}
    split = len(folders) == 1 or any(name.startswith("event_type=") for name in folders)
    for child in children:
        if _is_hidden(child.name):
            continue
        if child.name not in folders:
            yield SourceFile(child, _relative(child, source), child.stat().st_size, _text(source))
        elif split and not child.name.startswith("event_type="):
            yield from _below(child, source)
        else:
            yield from _whole(child, source)


def _whole(folder: Any, source: Any) -> Iterator[SourceFile]:
    here = storage.local(folder)
    found = _walk(here) if here is not None else _list(folder)
    for path, size in found:
        name = _relative(path, source)
        if not any(map(_is_hidden, name.split("/"))):
            yield SourceFile(path, name, size, _text(source))


def _walk(folder: Path) -> Iterator[tuple[Path, int]]:
    for where, folders, names in os.walk(folder, onerror=_fail):
        folders.sort()
        for name in sorted(names):
            path = Path(where) / name
            with suppress(FileNotFoundError):  # removed meanwhile, or a link to nothing
                yield path, path.stat().st_size


def _fail(error: OSError) -> None:
    """Pass over no folder: what cannot be listed is not empty."""
    raise error


def _list(folder: Any) -> Iterator[tuple[Any, int]]:
    """List an object store's folder by its flat listing: a request per thousand files, not one per folder."""
    listing = folder.fs.find(folder.path, detail=True)
    for name in sorted(listing):
        if not name.endswith("/"):  # some stores show a folder as an object
            yield folder / name.removeprefix(folder.path).lstrip("/"), listing[name]["size"] or 0


def _relative(path: Any, source: Any) -> str:
    here, root = storage.local(path), storage.local(source)
    if here is not None and root is not None:
        return here.relative_to(root).as_posix()
    return str(path.path).removeprefix(str(source.path)).lstrip("/")


def _text(path: Any) -> str:
    here = storage.local(path)
    return here.as_posix() if here is not None else str(path.path)


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))
