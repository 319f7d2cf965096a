"""Segment exports: they run by themselves, and end as an archive behind a URL or as files in a folder."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import secrets
import time
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pydantic_core import to_json

from airflow_provider_heapbraze.sandbox.cohorts import LARGEST_BODY
from airflow_provider_heapbraze.sandbox.exchange import Endpoint, Refusal, Reply, Work
from airflow_provider_heapbraze.sandbox.profiles import fields_to_export, profile
from airflow_provider_heapbraze.sandbox.rest import authorise
from airflow_provider_heapbraze.sandbox.segments import find

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_heapbraze.sandbox.exchange import Call
    from airflow_provider_heapbraze.sandbox.models import Segment
    from airflow_provider_heapbraze.sandbox.world import World

MOST_RUNNING = 100


def _zip(texts: Sequence[bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for text in texts:
            archive.writestr(f"{secrets.token_hex(16)}.txt", text)
    return held.getvalue()


def _gzip(texts: Sequence[bytes]) -> bytes:
    return gzip.compress(b"".join(texts), 1)


@dataclass(frozen=True)
class Format:
    """How files are packed.

    :param suffix: of their names.
    :param pack: makes one packed file of some files.
    """

    suffix: str
    media_type: str
    pack: Callable[[Sequence[bytes]], bytes]


FORMATS = {
    "zip": Format("zip", "application/zip", _zip),
    "gzip": Format("gz", "application/gzip", _gzip),
}


@dataclass
class Export:
    """An export that was started.

    :param ready_at: on the monotonic clock; files in a folder are there when their delivery is done, too.
    :param name: the last part of its URL; None where it has none.
    :param archive: what the URL gives.
    """

    segment_id: str
    object_prefix: str
    users: int
    files: int
    ready_at: float
    form: Format
    name: str | None = None
    archive: bytes = b""
    delivery: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return time.monotonic() < self.ready_at or (self.delivery is not None and not self.delivery.done())

    @property
    def ready(self) -> bool:
        """Whether all of its files are there: a folder may have refused them."""
        return not self.running and (self.delivery is None or self.delivery.exception() is None)


class Exports:
    """The exports of a workspace, in the order of their start."""

    def __init__(self) -> None:
        self.started: list[Export] = []
        self._ended = False

    def refuse_more(self, segment_id: str) -> None:
        """Refuse an export that has to wait for another: one a segment, 100 a company."""
        running = [export.segment_id for export in self.started if export.running]
        if segment_id in running:
            raise Refusal(429, "An export of this segment is running already")
        if len(running) >= MOST_RUNNING:
            raise Refusal(429, "Too many exports are running")

    def behind(self, name: str) -> Export | None:
        """Return the export whose URL ends in a name."""
        return next((export for export in self.started if export.name == name), None)

    def deliver(self, export: Export, texts: Sequence[bytes], folder: Path, seconds: float) -> None:
        """Put files into a folder from now on, the last one after so many seconds."""
        if not self._ended:
            export.delivery = asyncio.create_task(_deliver(export.form, texts, folder, seconds))

    def end(self) -> None:
        """Put no more files anywhere."""
        self._ended = True
        for export in self.started:
            if export.delivery is not None:
                export.delivery.cancel()


async def _deliver(form: Format, texts: Sequence[bytes], folder: Path, seconds: float) -> None:
    for text in texts:
        await asyncio.sleep(seconds / len(texts))
        _put(folder / f"{secrets.token_hex(16)}.{form.suffix}", form.pack([text]))


def _put(path: Path, content: bytes) -> None:
    """Write a file so that nobody sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}")
    hidden.write_bytes(content)
    hidden.replace(path)


def prepare_segment_export(world: World, call: Call) -> Work:
    """Start an export. Nothing is sent to a ``callback_endpoint``: the sandbox calls nobody."""
    body = call.json_object()
    segment = find(world, body.get("segment_id"))
    fields = fields_to_export(body)
    form = FORMATS.get(str(body.get("output_format", "zip")))
    if form is None:
        raise Refusal(400, "output_format must be zip or gzip")
    if not isinstance(body.get("callback_endpoint", ""), str):
        raise Refusal(400, "callback_endpoint must be a string")
    return Work(lambda: _start(world, segment, fields, form, call.base_url))


def _start(world: World, segment: Segment, fields: Sequence[str], form: Format, base_url: str) -> Reply:
    world.exports.refuse_more(segment.id)
    settings, reading = world.settings, world.reading()
    lines = [_line(profile(reading, user, fields)) for user in reading.members(segment)]
    texts = _files(lines, settings.export_users_per_file)
    export = Export(
        segment_id=segment.id,
        object_prefix=f"{uuid4()}-{int(time.time())}",
        users=len(lines),
        files=len(texts),
        ready_at=time.monotonic() + settings.export_delay,
        form=form,
    )
    world.exports.started.append(export)
    answer = {"message": "success", "object_prefix": export.object_prefix}
    if settings.export_folder is None:
        export.name, export.archive = f"{secrets.token_urlsafe(24)}.{form.suffix}", form.pack(texts)
        answer["url"] = f"{base_url}exports/{export.name}"
    else:
        folder = _folder(settings.export_folder, export)
        world.exports.deliver(export, texts, folder, settings.export_delay)
    return Reply(201, answer)


def _line(shown: dict[str, Any]) -> bytes:
    # pydantic's writer takes a tenth of the time of Python's, but refuses half a surrogate pair.
    try:
        return to_json(shown) + b"\n"
    except ValueError:
        return json.dumps(shown).encode() + b"\n"


def _files(lines: Sequence[bytes], most: int) -> list[bytes]:
    return [b"".join(lines[first : first + most]) for first in range(0, len(lines), most)]


def _folder(bucket: str, export: Export) -> Path:
    day = datetime.now(UTC).date().isoformat()
    return Path(bucket, "segment-export", export.segment_id, day, export.object_prefix)


def _signed_url(_: World, __: Endpoint, call: Call) -> None:
    """Refuse what a signed URL does not take: another method, and a second authorisation."""
    if call.method != "GET":
        raise Refusal(403, "The URL is signed for GET")
    if "authorization" in call.headers:
        raise Refusal(400, "Only one way of authorisation is allowed")


def prepare_file(world: World, call: Call) -> Work:
    """Give an export's archive when it is ready; before, its URL is like one that nothing is behind."""

    def apply() -> Reply:
        export = world.exports.behind(call.path_params["name"])
        if export is None or not export.ready:
            raise Refusal(404, "No such file")
        return Reply(200, export.archive, {"Content-Type": export.form.media_type})

    return Work(apply)


ENDPOINTS = (
    Endpoint(
        "segment-export",
        "POST",
        "/users/export/segment",
        group="pool",
        authorise=authorise,
        prepare=prepare_segment_export,
        largest_body=LARGEST_BODY,
        permission="users.export.segment",
    ),
    Endpoint(
        "segment-export-file",
        "GET",
        "/exports/{name}",
        group=None,
        authorise=_signed_url,
        prepare=prepare_file,
        tells_limit=False,
    ),
)
