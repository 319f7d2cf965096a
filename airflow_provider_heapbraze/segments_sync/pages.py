"""What Heap's Segments Sync pushes, and how it lies where it has landed.

Heap posts pages (``segment.users.sync``: who came, who left) and orders to empty a segment
(``segment.users.drain``). Each is landed as it came, as one line of an NDJSON file::

    <path>/heap/segment=<hash of the segment's id>/date=<YYYY-MM-DD-HH>/<number>-….ndjson
    {"received_at": <epoch ms>, "sent_at": <epoch ms>, "body": {…}}

``received_at`` is the receiver's time, ``sent_at`` the one that Heap signed. Files are written once, whole.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

# The way on wherever the segment in Heap and what is known of it may differ.
START_ANEW = (
    "start the segment's sync anew in Heap, and set full_since of SegmentSyncMembers to a time just before it"
)
LEAST_ID, MOST_ID = -(2**63), 2**63 - 1  # Heap: the segment's id is an int64


class _Segment(msgspec.Struct):
    id: int


class _Data(msgspec.Struct):
    segment: _Segment


class _Webhook(msgspec.Struct):
    data: _Data


_WEBHOOKS = msgspec.json.Decoder(_Webhook)


def segment_of(body: bytes) -> int:
    """Return the id of the segment that a webhook is about.

    What else is in it is not looked at: a new kind of webhook is landed, too, rather than lost.

    :raises ValueError: it is not JSON, or names no segment.
    """
    segment_id = _WEBHOOKS.decode(body).data.segment.id
    if not LEAST_ID <= segment_id <= MOST_ID:
        raise ValueError("the segment's id is no 64-bit number")
    return segment_id


def segment_folder(path: Path, segment_id: int) -> Path:
    """Return where a segment's pages are.

    :param path: of all that has landed.
    """
    digest = hashlib.blake2b(str(segment_id).encode(), digest_size=8).hexdigest()
    return path / "heap" / f"segment={digest}"


def landed_line(body: bytes, *, received_at: int, sent_at: int) -> bytes:
    """Return a webhook as it is landed, without the line's end.

    :param body: JSON, as it came.
    :param received_at: UTC epoch milliseconds.
    :param sent_at: UTC epoch milliseconds, as Heap signed it.
    """
    # In JSON a line's end can only stand between two tokens: within a text it is escaped.
    line = body.replace(b"\r", b" ").replace(b"\n", b" ")
    return b'{"received_at":%d,"sent_at":%d,"body":%s}' % (received_at, sent_at, line)
