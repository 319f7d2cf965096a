"""Whether a plan may be carried out without a person looking at it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.membership.guards import ChangeCounts, given
from airflow_provider_heapbraze.membership.holding import load_changes
from airflow_provider_heapbraze.membership.members import FileMembers, reading
from airflow_provider_heapbraze.membership.tables import workspace
from airflow_provider_heapbraze.membership.values import MACROS
from airflow_provider_heapbraze.membership.values import reading as value_of

if TYPE_CHECKING:
    from airflow_provider_heapbraze.membership.entries import Plan
    from airflow_provider_heapbraze.membership.guards import Breach, Guards
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.members import Access, Part
    from airflow_provider_heapbraze.membership.tables import Workspace

COLUMN = "id"


def breaches_of(plan: Plan, ledger: TargetLedger, guards: Guards, access: Access) -> list[Breach]:
    """Name every limit that a plan passes.

    :raises ConfigurationError: a limit is not a number in its range; a guard is an empty text; or the
        protected people cannot be read.
    :raises LedgerDamagedError: the plan's changes cannot be read.
    """
    location = given("protected", guards.protected)
    protected = 0 if location is None else _protected_removes(plan, ledger, str(location).strip(), access)
    return guards.breaches(ChangeCounts(**plan.change), plan.memory.past, protected)


def _protected_removes(plan: Plan, ledger: TargetLedger, location: str, access: Access) -> int:
    """Count whom a plan removes although they are protected."""
    with workspace() as space:
        space.sql(MACROS)
        space.sql("CREATE TABLE protected (value VARCHAR)")
        for part in FileMembers(location).parts(space, access, [COLUMN]):
            reading(part.name, partial(_load_protected, space, part))
        if not space.count("protected"):
            raise ConfigurationError(
                f"protected of Guards names nobody: {location} has no value in its column {COLUMN}. "
                "Nothing was sent. Mend the file, or give protected=None."
            )
        load_changes(space, ledger, plan)
        # Whoever is removed once more is out already.
        leave = f"remove AND file_row_number < {plan.first_removes}"
        return space.count(f"planned SEMI JOIN protected USING (value) WHERE {leave}")


def _load_protected(space: Workspace, part: Part) -> None:
    column_type = space.ask(f"DESCRIBE {part.query}")[0][1]
    text = f"nullif(trimmed({value_of(column_type).text.format('c0')}), '')"
    space.sql(f"INSERT INTO protected SELECT {text} FROM ({part.query}) WHERE {text} IS NOT NULL")
