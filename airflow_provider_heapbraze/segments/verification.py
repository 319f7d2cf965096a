"""What a check found, judged and written down beside the runs of its target."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_heapbraze.clients.errors import ConfigurationError, PermanentError
from airflow_provider_heapbraze.membership.entries import Commit
from airflow_provider_heapbraze.membership.errors import StalePlanError
from airflow_provider_heapbraze.membership.sync import now

if TYPE_CHECKING:
    from airflow_provider_heapbraze.membership.ledger import TargetLedger

log = logging.getLogger(__name__)


class VerificationFailedError(PermanentError):
    """What was delivered is not what Braze shows."""


@dataclass(frozen=True)
class Tolerance:
    """How much may differ.

    :param wrong_share: largest share of those who were checked that may be missing or surplus, 0 to 1.
    :param unknown_share: largest share of those who were checked that Braze may not know, 0 to 1. Braze
        ignores them without an error; where most are unknown, they are matched by a wrong column.
    """

    wrong_share: float
    unknown_share: float

    def complaints(self, found: dict[str, Any]) -> list[str]:
        """Say in which ways a result is beyond it."""
        return [*self.about_wrong(found), *self.about_unknown(found)]

    def about_wrong(self, found: dict[str, Any]) -> list[str]:
        """Say where too many are missing or surplus; a later look may find fewer, since reads lag."""
        checked = _checked(found)
        wrong = found.get("missing", 0) + found.get("surplus", 0)
        # Divided and not multiplied: 29 of 100 are a share of 0.29, but 0.29 * 100 is less than 29.
        if wrong / max(checked, 1) <= self.wrong_share:
            return []
        return [
            (
                f"{found['missing']:,} are missing and {found.get('surplus', 0):,} are surplus, of "
                f"{checked:,} who were checked (tolerance: a share of {self.wrong_share:g})"
            )
        ]

    def about_unknown(self, found: dict[str, Any]) -> list[str]:
        """Say where too many do not exist: no write of ours makes them."""
        checked = _checked(found)
        if found["unknown"] / max(checked, 1) <= self.unknown_share:
            return []
        return [
            (
                f"{found['unknown']:,} of {checked:,} who were checked do not exist in Braze (limit: a "
                f"share of {self.unknown_share:g}): look at the mapping"
            )
        ]


def _checked(found: dict[str, Any]) -> int:
    return int(found["sample"] if found["check"] == "existence" else found["held"] - found["not_checkable"])


def share(value: Any, name: str) -> float:
    """Return an argument that is a share, also where a template made it.

    :raises ConfigurationError: it is not a number from 0 to 1.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number <= 1:
        raise ConfigurationError(f"{name} must be a share, from 0 to 1. Nothing was sent.")
    return number


def last_commit(ledger: TargetLedger) -> Commit:
    """Return the import that is to be verified: the last one.

    :raises ConfigurationError: nothing was imported yet, or an import has not ended.
    """
    last = ledger.last()
    if last is None:
        raise ConfigurationError(
            f"Nothing was imported into {ledger.target.folder} yet, by this ledger's account: there is "
            "nothing to verify. Run the import first."
        )
    if not isinstance(last, Commit):
        raise ConfigurationError(
            f"The import of run {last.run_id} into {ledger.target.folder} has not ended: there is nothing to "
            "verify yet. Clear the import, then this task."
        )
    return last


def check_still_last(ledger: TargetLedger, commit: Commit) -> None:
    """Make sure that nothing was imported while it was looked.

    :raises StalePlanError: something was.
    """
    if ledger.last_number() != commit.number:
        raise StalePlanError(
            f"{ledger.target.folder} was imported into while run {commit.run_id} was verified: what was seen "
            "belongs to neither. Clear this task when that import has ended."
        )


def write_verification(ledger: TargetLedger, commit: Commit, found: dict[str, Any]) -> dict[str, Any]:
    """Write a result down in the target's ledger; return it with its place.

    ``verifications/<entry>-<id>.json`` has it, ``<entry>`` being that of the commit.
    """
    name = f"verifications/{commit.number:08d}-{uuid4().hex[:8]}.json"
    result = {
        "verified_run_id": commit.run_id,
        **found,
        "verified_at": now(),
        "report_uri": ledger.uri(name),
    }
    ledger.write_report(name, result)
    log.info("%s", describe(result))
    return result


def describe(found: dict[str, Any]) -> str:
    """Say in a sentence what was found."""
    if found["check"] == "existence":
        said = f"Existence: {found['claim']}"
    else:
        said = (
            f"The segment has {found['in_segment']:,} people, the ledger {found['held']:,}: "
            f"{found['missing']:,} missing, {found['surplus']:,} surplus, {found['unknown']:,} unknown to "
            "Braze."
        )
    if found["not_checkable"]:
        said += f" {found['not_checkable']:,} are held by a device id, which Braze does not show."
    return said


def failed(ledger: TargetLedger, found: dict[str, Any], complaints: list[str]) -> VerificationFailedError:
    """Return the error for a result that is beyond the tolerance."""
    aside = f" Who they are: {found['aside']}." if found.get("aside") else ""
    return VerificationFailedError(
        f"{ledger.target.folder} is not verified: {'; '.join(complaints)}.{aside} The import stays as it is. "
        "For those who are missing run the import once with force_full=True, then clear this task; those who "
        "are surplus were added in Braze by somebody else, or a removal was lost."
    )
