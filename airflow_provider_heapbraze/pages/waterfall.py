"""A waterfall as rows of a table: a label, a number, and from where to where its bar goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KEPT, LOST, ADDS, REMOVES = "kept", "lost", "adds", "removes"


@dataclass(frozen=True)
class Step:
    """One row.

    :param count: how many; negative where they leave the waterfall here.
    :param start: where the bar begins, and ``end`` where it ends.
    :param kind: ``kept``, ``lost``, ``adds`` or ``removes``.
    """

    label: str
    count: int
    start: int
    end: int
    kind: str

    @property
    def is_part(self) -> bool:
        """Tell whether it is a part of the row above."""
        return self.kind == LOST


@dataclass(frozen=True)
class Waterfall:
    """Rows on one scale.

    :param whole: the end of the scale.
    """

    title: str
    whole: int
    steps: list[Step]


def membership(counts: Mapping[str, Any]) -> list[Waterfall]:
    """Follow members down to those who are wanted, and changes down to those that were accepted.

    :param counts: the waterfall of a report; of a plan, as far as it goes.
    """
    members = list(_down(counts["members"], "members in the segment", _from_members(counts)))
    planned = counts.get("planned", counts["adds"] + counts["removes"])
    changes = [
        Step("to add", counts["adds"], 0, counts["adds"], ADDS),
        Step("to remove", counts["removes"], counts["adds"], planned, REMOVES),
    ]
    if counts.get("leaving"):
        changes.append(Step("absent, not removed yet", counts["leaving"], 0, 0, LOST))
    if "acknowledged" in counts:
        rejected = [(f"rejected: {reason}", count, "") for reason, count in counts["rejected"].items()]
        changes += _down(planned, "planned", [*rejected, ("", 0, "acknowledged")])
    return [
        Waterfall("From the segment to who is wanted", counts["members"], members),
        Waterfall(
            "From the change to what was accepted" if "acknowledged" in counts else "The change",
            planned,
            changes,
        ),
    ]


def events(report: Mapping[str, Any]) -> list[Waterfall]:
    """Follow events down to those that were sent.

    :param report: of an export.
    """
    lost = [
        ("without an identity", report["anonymous"], ""),
        *((f"filtered by {reason}", count, "") for reason, count in report["filtered_by"].items()),
        ("the same event as another", report["duplicates"], ""),
        *((f"rejected: {reason}", count, "") for reason, count in report["rejected_by"].items()),
    ]
    steps = list(_down(report["events"], "events in the files", [*lost, ("", 0, "sent to Heap")]))
    return [Waterfall("From the files to Heap", report["events"], steps)]


def _from_members(counts: Mapping[str, Any]) -> list[tuple[str, int, str]]:
    """Return what is lost on the way, and what the rest is called then."""
    unmatched = [(f"unmatched: {reason}", count, "") for reason, count in counts["unmatched"].items()]
    return [
        *unmatched,
        ("duplicates", counts["duplicates"], "matched"),
        ("not deliverable this way", counts["undeliverable"], "wanted"),
        ("unchanged", counts["unchanged"], ""),
    ]


def _down(whole: int, label: str, losses: list[tuple[str, int, str]]) -> Iterator[Step]:
    """Give the whole, and after each loss the rest where it has a name."""
    rest = whole
    yield Step(label, rest, 0, rest, KEPT)
    for lost, count, then in losses:
        if count:
            yield Step(lost, -count, rest - count, rest, LOST)
        rest -= count
        if then:
            yield Step(then, rest, 0, rest, KEPT)
