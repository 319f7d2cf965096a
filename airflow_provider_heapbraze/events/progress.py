"""What an export has come to know: which rows of which files are settled, and how."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyroaring import BitMap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass
class FileState:
    """A file that is not done: rows of it may be open.

    :param key: of the file; see :class:`.sources.SourceFile`.
    :param settled: rows that were sent, or never will be.
    :param doubtful: rows that an export sent that died before it knew the answer.
    :param held: rows that this process has in hand; not written down.
    :param rows: number of events in the file; None until it was read to its end.
    :param bad: why the file was set aside; empty where it was not.
    :param bad_run: the run that set it aside.
    :param reported: whether that run lived to say so.
    """

    key: int
    name: str
    size: int
    settled: BitMap = field(default_factory=BitMap)
    doubtful: BitMap = field(default_factory=BitMap)
    held: BitMap = field(default_factory=BitMap)
    rows: int | None = None
    bad: str = ""
    bad_run: str = ""
    reported: bool = False

    @property
    def is_known_bad(self) -> bool:
        """Tell whether the file was set aside, everything else in it is settled, and people were told."""
        return bool(self.bad) and self.reported and self.is_settled

    @property
    def is_settled(self) -> bool:
        """Tell whether every event of the file is settled."""
        return self.rows is not None and len(self.settled) >= self.rows


@dataclass
class FileProgress:
    """What happened to a file since the last record."""

    name: str
    size: int
    settled: BitMap = field(default_factory=BitMap)
    sending: BitMap = field(default_factory=BitMap)
    rows: int | None = None
    bad: str = ""


@dataclass
class Progress:
    """What happened since the last record.

    :param ids: keys of events that Heap has, by hour.
    :param sending_ids: keys of events that are about to be sent.
    :param counts: outcomes of events, by outcome or ``outcome:reason``.
    :param aside: file of events that were kept aside, or empty.
    """

    files: dict[int, FileProgress] = field(default_factory=dict)
    ids: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    sending_ids: list[int] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    aside: str = ""

    def of(self, state: FileState) -> FileProgress:
        """Return what happened to a file."""
        return self.files.setdefault(state.key, FileProgress(state.name, state.size))

    def __bool__(self) -> bool:
        return bool(self.files or self.counts)

    def as_record(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "files": {str(key): _file_record(file) for key, file in self.files.items()},
            "ids": {str(hour): keys for hour, keys in self.ids.items()},
            "sending_ids": self.sending_ids,
            "counts": dict(self.counts),
            "aside": self.aside,
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Progress:
        """Read what :meth:`as_record` wrote."""
        progress = cls(
            files={
                int(key): FileProgress(
                    file["name"],
                    file["size"],
                    _rows(file["settled"]),
                    _rows(file["sending"]),
                    file["rows"],
                    file["bad"],
                )
                for key, file in record["files"].items()
            },
            sending_ids=record["sending_ids"],
            counts=Counter(record["counts"]),
            aside=record["aside"],
        )
        progress.ids.update({int(hour): keys for hour, keys in record["ids"].items()})
        return progress


def _file_record(file: FileProgress) -> dict[str, Any]:
    return {
        "name": file.name,
        "size": file.size,
        "settled": list(_ranges(file.settled)),
        "sending": list(_ranges(file.sending)),
        "rows": file.rows,
        "bad": file.bad,
    }


def _ranges(rows: Iterable[int]) -> Iterator[list[int]]:
    """Give rising numbers as ranges ``[first, end]``, the end not with them."""
    first = end = -1
    for row in rows:
        if row != end:
            if end > first:
                yield [first, end]
            first = row
        end = row + 1
    if end > first:
        yield [first, end]


def _rows(ranges: Iterable[list[int]]) -> BitMap:
    rows = BitMap()
    for first, end in ranges:
        rows.add_range(first, end)
    return rows
