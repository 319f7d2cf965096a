"""One person under several identifiers: removing one of them removes the person.

A match tells which identifiers a person has beside the chosen one. Of those who are held that is carried on
from plan to plan: a source may leave one of the identifiers out tomorrow. Removals are delivered first, so
that whoever is asserted after one is in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_heapbraze.membership.carried import load_carried
from airflow_provider_heapbraze.membership.changing import add, take_out
from airflow_provider_heapbraze.membership.holding import KEY, NOBODY, OF_A, OF_B, ON_KEY, SURELY_HELD
from airflow_provider_heapbraze.membership.matching import load_others

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_heapbraze.membership.entries import Entry
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.space import Space

OWNER = "of_kind, of_value, of_label"
NO_LINKS = f"SELECT {KEY}, '' AS of_kind, '' AS of_value, '' AS of_label FROM ({NOBODY}) a"
_REMOVED = f"(SELECT {KEY} FROM change WHERE remove)"
_ON_OWNER = "(a.kind = b.of_kind AND a.value = b.of_value AND a.label = b.of_label)"


def load_links(space: Space, ledger: TargetLedger, last: Entry | None, matches: Path) -> None:
    """Make the view ``known_links``: identifiers, each with the chosen one of the same person.

    What this match, the last run's match and the runs before say: an identifier may have several owners.

    :param matches: folder of all matches.
    :raises LedgerDamagedError: what the runs before say cannot be read.
    """
    load_carried(space, ledger, last, "links", NO_LINKS)
    if last is None or not load_others(space, "others_before", matches / last.fingerprint):
        space.view("others_before", NO_LINKS)
    views = ("others", "others_before", "links_before")
    union = " UNION ALL ".join(f"SELECT {KEY}, {OWNER} FROM {view}" for view in views)
    space.view("known_links", union)


def keep_whom_another_identifier_holds(space: Space) -> None:
    """Take removals out of ``change`` where the same person is wanted under the chosen identifier.

    The other identifier stays held, and goes when the person goes. Where nobody knows whether it is held, its
    removal stays, and the person is asserted after it.
    """
    leaving = f"(SELECT {KEY} FROM change WHERE remove AND NOT again)"
    space.table(
        "links_leaving", f"SELECT {OF_A}, {OWNER} FROM known_links a SEMI JOIN {leaving} b ON {ON_KEY}"
    )
    space.table(
        "held_beside", f"SELECT DISTINCT {OF_B} FROM links_leaving b SEMI JOIN wanted a ON {_ON_OWNER}"
    )
    take_out(space, f"SELECT {KEY} FROM held_beside a WHERE {SURELY_HELD}")


def assert_whom_a_removal_takes(space: Space) -> None:
    """Add to ``change`` who is wanted, and may be the same person as one who is removed.

    So it is where the chosen identifier is gone and another one is wanted.
    """
    space.table(
        "owners_taken",
        f"SELECT {KEY} FROM change WHERE remove UNION "
        f"SELECT {OWNER} FROM known_links a SEMI JOIN {_REMOVED} b ON {ON_KEY}",
    )
    space.table(
        "perhaps_taken",
        f"SELECT {KEY} FROM owners_taken UNION "
        f"SELECT {OF_B} FROM known_links b SEMI JOIN owners_taken a ON {_ON_OWNER}",
    )
    space.table("taken_beside", f"SELECT {OF_A} FROM perhaps_taken a ANTI JOIN change b ON {ON_KEY}")
    if space.count("taken_beside"):
        beside = f"wanted a SEMI JOIN taken_beside b ON {ON_KEY}"
        add(space, f"SELECT {OF_A}, false AS remove, false AS again FROM {beside}")


def make_links(space: Space) -> None:
    """Make the table ``links``, for the plans to come: of whom they cannot know it from the last match.

    These are other identifiers that are or may be held, and chosen ones that are to go. Who is or may be
    held is wanted, or one of ``leavers``.
    """
    present = f"(SELECT {KEY} FROM leavers UNION ALL SELECT {KEY} FROM wanted)"
    space.table(
        "links",
        f"SELECT {OF_A}, {OWNER} FROM known_links a SEMI JOIN {present} b ON {ON_KEY} "
        f"UNION SELECT {OF_B}, {OWNER} FROM known_links b SEMI JOIN leavers a ON {_ON_OWNER}",
    )
