"""One person under several identifiers: removing one of them removes the person.

A match tells which identifiers a person has beside the chosen one. Where two of them are, or may be, held,
that is carried on from plan to plan: a source may leave one of them out tomorrow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_heapbraze.membership.carried import load_carried
from airflow_provider_heapbraze.membership.holding import KEY, NOBODY, ON_KEY

if TYPE_CHECKING:
    from airflow_provider_heapbraze.membership.entries import Entry
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.tables import Workspace

OWNER = "of_kind, of_value, of_label"
NO_LINKS = f"SELECT *, '' AS of_kind, '' AS of_value, '' AS of_label FROM ({NOBODY})"
_ON_OWNER = "(a.kind = b.of_kind AND a.value = b.of_value AND a.label = b.of_label)"


def load_links(space: Workspace, ledger: TargetLedger, last: Entry | None) -> None:
    """Make the view ``known_links``: identifiers, each with the chosen one of the same person.

    What the match says counts, and for identifiers that are in no pair of it what was known before.

    :raises LedgerDamagedError: what was known before cannot be read.
    """
    load_carried(space, ledger, last, "links", NO_LINKS)
    space.sql(
        f"CREATE VIEW known_links AS SELECT {KEY}, {OWNER} FROM others UNION ALL "
        f"SELECT {KEY}, {OWNER} FROM links_before a WHERE NOT EXISTS (SELECT 1 FROM others b WHERE {ON_KEY})"
    )


def keep_whom_another_identifier_holds(space: Workspace) -> None:
    """Take removals out of ``change`` where the same person is wanted under the chosen identifier.

    The other identifier stays held, and goes when the person goes.
    """
    space.sql(
        f"CREATE TABLE same_people AS SELECT {KEY} FROM known_links b WHERE EXISTS "
        f"(SELECT 1 FROM wanted a WHERE {_ON_OWNER})"
    )
    space.sql(f"DELETE FROM change a WHERE remove AND EXISTS (SELECT 1 FROM same_people b WHERE {ON_KEY})")


def assert_whom_a_removal_takes(space: Workspace) -> None:
    """Add to ``change`` who is wanted, and may be the same person as one who is removed.

    So it is where the chosen identifier is gone and another one is wanted. Removals are delivered first.
    """
    space.sql(
        "CREATE TABLE perhaps_taken AS "
        f"SELECT b.kind, b.value, b.label FROM known_links b JOIN change a ON {_ON_OWNER} WHERE a.remove "
        "UNION SELECT c.kind, c.value, c.label FROM change a "
        f"JOIN known_links b ON {ON_KEY} JOIN known_links c USING ({OWNER}) WHERE a.remove"
    )
    space.sql(
        f"INSERT INTO change SELECT {KEY}, false, false FROM perhaps_taken a "
        f"WHERE EXISTS (SELECT 1 FROM wanted b WHERE {ON_KEY}) "
        f"AND NOT EXISTS (SELECT 1 FROM change b WHERE {ON_KEY})"
    )


def make_links(space: Workspace) -> None:
    """Make the table ``links``, for the next plan: identifiers that are or may be held by then."""
    space.sql(
        f"CREATE TABLE links AS SELECT DISTINCT {KEY}, {OWNER} FROM known_links a "
        f"WHERE EXISTS (SELECT 1 FROM may_be_held b WHERE {ON_KEY}) "
        f"OR EXISTS (SELECT 1 FROM wanted b WHERE {ON_KEY})"
    )
