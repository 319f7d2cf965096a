"""What was found out about one record of the ledger."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError

if TYPE_CHECKING:
    from airflow_provider_heapbraze.ledger_folder import LedgerFolder

WHOLE, WAITS, UNFINISHED, DAMAGED = "whole", "a plan waits", "unfinished", "damaged"


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    :param where: the folder in the ledger.
    :param what: is wrong there.
    :param to_do: what the person on call does now.
    """

    where: str
    what: str
    to_do: str


@dataclass(frozen=True)
class WaitingPlan:
    """A plan that guards stopped, or that waits for approval or for its import.

    :param next: what happens next with it.
    :param breaches: the guards that it passes, as far as they are known, for a program.
    """

    plan_id: str
    run_id: str
    next: str
    breaches: list[dict[str, Any]]


@dataclass
class Account:
    """One target, source or segment sync.

    :param group: ``targets``, ``sources`` or ``segment-syncs``.
    :param name: of its folder, as messages name it.
    :param size: identifiers that are held, files that are not done, or members; None where it is not known.
    :param runs: how many came to their end.
    :param newest_run: the one whose plan waits, too; None where it is not known.
    :param at: when that was, UTC, by what the record says.
    :param planned: changes of the open plan; None where there is none.
    :param settled: how many of them have an answer.
    :param waiting: None where no plan waits.
    :param warehouses: the connections of those that have tables of it, which nobody looks at here.
    :param next: what happens next with what is unfinished.
    """

    group: str
    name: str
    size: int | None = None
    runs: int = 0
    newest_run: str | None = None
    at: datetime | None = None
    planned: int | None = None
    settled: int | None = None
    waiting: WaitingPlan | None = None
    warehouses: set[str] = field(default_factory=set)
    next: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def state(self) -> str:
        """Return it in a word, or in three."""
        if self.findings:
            return DAMAGED
        if self.next:
            return UNFINISHED
        return WAITS if self.waiting else WHOLE

    @property
    def all_next(self) -> list[str]:
        """Return what happens next with what is unfinished, and with a plan that waits."""
        return [*self.next, *([self.waiting.next] if self.waiting else [])]

    def find(self, what: str, to_do: str) -> None:
        """Note something that is wrong; once, in however many ways it was met."""
        finding = Finding(f"{self.group}/{self.name}", what, to_do)
        if finding not in self.findings:
            self.findings.append(finding)

    def find_damage(self, ledger: LedgerFolder, damage: LedgerDamagedError) -> None:
        """Note that a run would stop."""
        self.find(damage.what, f"Runs stop here, and send nothing. {ledger.way_on}")


def files_in(count: int, name: str) -> str:
    """Say how many there are of something."""
    return f"{count:,} {name}" if count == 1 else f"{count:,} {name}s"


def as_time(ledger: LedgerFolder, name: str, key: str) -> datetime | None:
    """Return a time that a record says, UTC; None where there is none: a file's own may be that of a copy.

    :param name: of the record; empty for none.
    :param key: of the time, which is ISO 8601 or UTC epoch seconds.
    """
    with suppress(LedgerDamagedError, OverflowError, TypeError, ValueError):
        said = ledger.read(name).get(key) if name else None
        if isinstance(said, str):
            return datetime.fromisoformat(said).astimezone(UTC)
        return datetime.fromtimestamp(said, UTC) if said else None
    return None
