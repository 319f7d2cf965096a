"""What was found out about one record of the ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, LedgerFolder


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


@dataclass
class Account:
    """One target, source or segment sync.

    :param group: ``targets``, ``sources`` or ``segment-syncs``.
    :param name: of its folder, as messages name it.
    :param size: identifiers that are held, files that are not done, or members; None where it is not known.
    :param runs: how many came to their end.
    :param newest_run: None where it is not known.
    :param at: when the newest one was last at work, UTC.
    :param next: what happens next with what is unfinished.
    """

    group: str
    name: str
    size: int | None = None
    runs: int = 0
    newest_run: str | None = None
    at: datetime | None = None
    next: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def state(self) -> str:
        """Return it in a word."""
        return "damaged" if self.findings else "unfinished" if self.next else "whole"

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
