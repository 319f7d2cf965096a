"""What an export did, in numbers that add up."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.events.mapping import REASONS
from airflow_provider_heapbraze.ledger_folder import UnbalancedError

if TYPE_CHECKING:
    from collections.abc import Mapping

# What becomes of an event; each has one of these.
OUTCOMES = ("sent", "duplicates", "anonymous", "filtered", "rejected")


def numbers(counts: Mapping[str, int]) -> dict[str, Any]:
    """Sum up what became of the events.

    ``events = sent + duplicates + anonymous + filtered + rejected``.

    :param counts: by outcome, or by ``outcome:reason``.
    :raises UnbalancedError: events are unaccounted for.
    """
    reasons: defaultdict[str, dict[str, int]] = defaultdict(dict)
    sums = dict.fromkeys(OUTCOMES, 0)
    for name, count in counts.items():
        outcome, _, reason = name.partition(":")
        if outcome in sums:
            sums[outcome] += count
        if reason:
            reasons[outcome][reason] = count
    events = counts.get("events", 0)
    if events != sum(sums.values()):
        raise UnbalancedError(
            f"The report does not add up: {events} events, but {sums}. This is a fault of this package: "
            "please report it with these numbers. What was sent is recorded."
        )
    return {
        "events": events,
        **sums,
        "cut": counts.get("cut", 0),
        "files": counts.get("files", 0),
        "filtered_by": dict(reasons["filtered"]),
        "rejected_by": dict(reasons["rejected"]),
    }


def as_table(report: Mapping[str, Any]) -> str:
    """Lay the numbers out for a log or a terminal."""
    rows = [
        ("events in the files", report["events"]),
        ("  without an identity", -report["anonymous"]),
        *((f"  filtered by {reason}", -count) for reason, count in report["filtered_by"].items()),
        ("  the same event as another", -report["duplicates"]),
        *((f"  rejected: {reason}", -count) for reason, count in report["rejected_by"].items()),
        ("sent to Heap", report["sent"]),
    ]
    shown = [(label, count) for label, count in rows if count or not label.startswith(" ")]
    return "\n".join(f"{label:<34}{count:>13,}" for label, count in shown)


def notes(counts: Mapping[str, int]) -> list[str]:
    """Return what a person should know about events that were sent otherwise than they came, or not."""
    said = []
    if counts.get("finer_time"):
        said.append(
            f"{counts['finer_time']:,} events had their time in milliseconds or finer; it was read as such."
        )
    if counts.get("cut"):
        said.append(f"{counts['cut']:,} names or values were cut at 1,023 characters: Heap takes no more.")
    for name, count in sorted(counts.items()):
        outcome, _, reason = name.partition(":")
        if outcome == "rejected":
            said.append(f"{count:,} events were kept aside: each {REASONS[reason]}.")
    if counts.get("anonymous"):
        said.append(f"{counts['anonymous']:,} events were kept aside: each {REASONS['anonymous']}.")
    return said
