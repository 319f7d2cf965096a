"""One person under several identifiers: removing one of them removes the person.

A match tells which identifiers a person has beside the chosen one. Of those who are held that is carried on
from plan to plan: a source may leave one of the identifiers out tomorrow. Removals are delivered first, so
that whoever is asserted after one is in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_heapbraze.membership.carried import load_carried
from airflow_provider_heapbraze.membership.holding import KEY, NOBODY, ON_KEY, SURELY_HELD
from airflow_provider_heapbraze.membership.matching import OTHERS

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_heapbraze.membership.entries import Entry
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.tables import Workspace

OWNER = "of_kind, of_value, of_label"
NO_LINKS = f"SELECT *, '' AS of_kind, '' AS of_value, '' AS of_label FROM ({NOBODY})"
_ON_OWNER = "(a.kind = b.of_kind AND a.value = b.of_value AND a.label = b.of_label)"


def load_links(space: Workspace, ledger: TargetLedger, last: Entry | None, matches: Path) -> None:
    """Make the view ``known_links``: identifiers, each with the chosen one of the same person.

    What this match, the last run's match and the runs before say: an identifier may have several owners.

    :param matches: folder of all matches.
    :raises LedgerDamagedError: what the runs before say cannot be read.
    """
    load_carried(space, ledger, last, "links", NO_LINKS)
    if last is None or not space.load("others_before", matches / last.fingerprint / OTHERS):
        space.sql(f"CREATE VIEW others_before AS {NO_LINKS}")
    views = ("others", "others_before", "links_before")
    union = " UNION ALL ".join(f"SELECT {KEY}, {OWNER} FROM {view}" for view in views)
    space.sql(f"CREATE VIEW known_links AS {union}")


def keep_whom_another_identifier_holds(space: Workspace) -> None:
    """Take removals out of ``change`` where the same person is wanted under the chosen identifier.

    The other identifier stays held, and goes when the person goes. Where nobody knows whether it is held, its
    removal stays, and the person is asserted after it.
    """
    space.sql(
        "CREATE TABLE held_beside AS SELECT DISTINCT b.kind, b.value, b.label FROM known_links b "
        f"SEMI JOIN (SELECT {KEY} FROM change WHERE remove AND NOT again) r USING ({KEY}) "
        f"SEMI JOIN wanted a ON {_ON_OWNER}"
    )
    space.sql(
        f"DELETE FROM change a WHERE remove AND EXISTS (SELECT 1 FROM held_beside b WHERE {ON_KEY}) "
        f"AND {SURELY_HELD}"
    )


def assert_whom_a_removal_takes(space: Workspace) -> None:
    """Add to ``change`` who is wanted, and may be the same person as one who is removed.

    So it is where the chosen identifier is gone and another one is wanted.
    """
    space.sql(
        f"CREATE TABLE owners_taken AS SELECT {KEY} FROM change WHERE remove UNION "
        f"SELECT {OWNER} FROM known_links SEMI JOIN (SELECT {KEY} FROM change WHERE remove) r USING ({KEY})"
    )
    space.sql(
        f"CREATE TABLE perhaps_taken AS SELECT {KEY} FROM owners_taken UNION "
        f"SELECT b.kind, b.value, b.label FROM known_links b SEMI JOIN owners_taken a ON {_ON_OWNER}"
    )
    space.sql(
        f"INSERT INTO change SELECT {KEY}, false, false FROM perhaps_taken a "
        f"WHERE EXISTS (SELECT 1 FROM wanted b WHERE {ON_KEY}) "
        f"AND NOT EXISTS (SELECT 1 FROM change b WHERE {ON_KEY})"
    )


def make_links(space: Workspace) -> None:
    """Make the table ``links``, for the plans to come: of whom they cannot know it from the last match.

    These are other identifiers that are or may be held, and chosen ones that are to go. Who is or may be
    held is wanted, or one of ``leavers``.
    """
    space.sql(
        f"CREATE TABLE links AS SELECT DISTINCT {KEY}, {OWNER} FROM known_links "
        f"SEMI JOIN (SELECT {KEY} FROM leavers UNION ALL SELECT {KEY} FROM wanted) USING ({KEY}) "
        f"UNION SELECT b.kind, b.value, b.label, b.of_kind, b.of_value, b.of_label FROM known_links b "
        f"SEMI JOIN leavers a ON {_ON_OWNER}"
    )
