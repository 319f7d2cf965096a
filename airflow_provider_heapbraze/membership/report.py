"""What a run did, in numbers that add up."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.ledger_folder import UnbalancedError

if TYPE_CHECKING:
    from airflow_provider_heapbraze.membership.entries import Plan, Settled


def waterfall(plan: Plan, settled: Settled) -> dict[str, Any]:
    """Follow the members down to the acknowledgements.

    ``members = matched + duplicates + unmatched``, ``matched = wanted + undeliverable``,
    ``wanted = unchanged + adds``, ``planned = acknowledged + rejected``.

    :raises UnbalancedError: rows are unaccounted for.
    """
    steps = {
        "leaving": 0,
        "asserted_again": 0,
        **plan.counts,
        "planned": plan.rows,
        "acknowledged": settled.acknowledged_rows,
        "rejected": dict(sorted(Counter(settled.rejected.values()).items())),
    }
    _balance("members", steps["members"], steps["matched"], steps["duplicates"], *steps["unmatched"].values())
    _balance("matched", steps["matched"], steps["wanted"], steps["undeliverable"])
    _balance("wanted", steps["wanted"], steps["unchanged"], steps["adds"])
    _balance("planned", steps["planned"], steps["adds"], steps["removes"])
    _balance("planned", steps["planned"], steps["acknowledged"], *steps["rejected"].values())
    return steps


def as_table(steps: dict[str, Any]) -> str:
    """Lay a waterfall out for a log or a terminal."""
    rows = [
        ("members in the segment", steps["members"]),
        *((f"  unmatched: {reason}", -count) for reason, count in steps["unmatched"].items()),
        ("  duplicates", -steps["duplicates"]),
        ("matched", steps["matched"]),
        ("  not deliverable this way", -steps["undeliverable"]),
        ("wanted", steps["wanted"]),
        ("  unchanged", -steps["unchanged"]),
        ("to add", steps["adds"]),
        ("to remove", steps["removes"]),
        ("  absent, not removed yet", steps["leaving"]),
        ("planned", steps["planned"]),
        ("  of them asserted again", steps["asserted_again"]),
        *((f"  rejected: {reason}", -count) for reason, count in steps["rejected"].items()),
        ("acknowledged", steps["acknowledged"]),
    ]
    shown = [(label, count) for label, count in rows if count or not label.startswith(" ")]
    return "\n".join(f"{label:<34}{count:>13,}" for label, count in shown)


def _balance(name: str, whole: int, *parts: int) -> None:
    if whole != sum(parts):
        raise UnbalancedError(
            f"The report does not add up: {name} is {whole}, its parts are {' + '.join(map(str, parts))}. "
            "Nothing was committed; the plan is kept. This is a fault of this package: please report it with "
            "these numbers."
        )
