"""What a check found, judged and written down beside the runs of its target."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_heapbraze.clients.errors import ConfigurationError, PermanentError, TransientError
from airflow_provider_heapbraze.glances import announce
from airflow_provider_heapbraze.membership.entries import Commit
from airflow_provider_heapbraze.membership.sync import now
from airflow_provider_heapbraze.segments.bounds import as_claim
from airflow_provider_heapbraze.segments.existence import CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_heapbraze.membership.ledger import TargetLedger

log = logging.getLogger(__name__)


class NotYetError(TransientError):
    """There is nothing to verify yet; there may be later."""


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
        return [*_about_nobody(found), *self.about_wrong(found), *self.about_unknown(found)]

    def about_wrong(self, found: dict[str, Any]) -> list[str]:
        """Say where too many are missing or surplus; a later look may find fewer, since reads lag."""
        checked = _checked(found)
        surplus = found.get("surplus", 0)
        if found["check"] == "segment":
            # Whoever was held by a device id and is identified now is in it under another identifier.
            surplus = max(0, surplus - found["not_checkable"])
        missing = _of_all(found, "missing")
        wrong = missing + surplus
        # Divided and not multiplied: 29 of 100 are a share of 0.29, but 0.29 * 100 is less than 29.
        if wrong / max(checked, 1) <= self.wrong_share:
            return []
        return [
            (
                f"{_count(found, missing)} are missing and {surplus:,} are surplus, of "
                f"{checked:,} who were checked (tolerance: a share of {self.wrong_share:g})"
            )
        ]

    def about_unknown(self, found: dict[str, Any]) -> list[str]:
        """Say where too many do not exist: no write of ours makes them."""
        checked, unknown = _checked(found), _of_all(found, "unknown")
        if unknown / max(checked, 1) <= self.unknown_share:
            return []
        return [
            (
                f"{_count(found, unknown)} of {checked:,} who were checked do not exist in Braze (limit: a "
                f"share of {self.unknown_share:g}): look at the mapping"
            )
        ]


def _about_nobody(found: dict[str, Any]) -> list[str]:
    nobody = found["not_checkable"] and not _checked(found)
    return (
        ["nobody could be checked: all are held by a device id, which Braze does not show"] if nobody else []
    )


def _checked(found: dict[str, Any]) -> int:
    return int(found["sample"] if found["check"] == "existence" else found["held"] - found["not_checkable"])


def _of_all(found: dict[str, Any], name: str) -> float:
    """Return how many are missing or unknown, in proportion those too who were not looked up."""
    count = int(found.get(name, 0))
    others = found.get("not_looked_up", 0)
    return count + others * count / (found["missing"] + found["unknown"]) if others else count


def _count(found: dict[str, Any], number: float) -> str:
    return f"{'about ' if found.get('not_looked_up') else ''}{number:,.0f}"


def last_commit(ledger: TargetLedger) -> Commit:
    """Return the import that is to be verified: the last one.

    :raises ConfigurationError: nothing was imported yet.
    :raises NotYetError: an import has not ended.
    """
    last = ledger.last()
    if last is None:
        raise ConfigurationError(
            f"Nothing was imported into {ledger.target.folder} yet, by this ledger's account: there is "
            "nothing to verify. Run the import first."
        )
    if not isinstance(last, Commit):
        raise NotYetError(
            f"The import of run {last.run_id} into {ledger.target.folder} has not ended: there is nothing to "
            "verify yet. Clear the import, then this task."
        )
    return last


def check_still_last(ledger: TargetLedger, commit: Commit) -> None:
    """Make sure that nothing was imported while it was looked.

    :raises NotYetError: something was.
    """
    if ledger.last_number() != commit.number:
        raise NotYetError(
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
    announce(ledger.folder, commit.number)
    ledger.write_report(name, result)
    log.info("%s, run %s: %s", ledger.target.folder, commit.run_id, describe(result))
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
    if found.get("not_looked_up"):
        # What a sample says of all is not what it says of those alone who are not in the sample.
        at_most, claim = found["missing_at_most"], "all of them may be"
        if at_most < 1:
            claim = f"fewer than {as_claim(at_most)} of all who are not in it are"
            claim = f"with {CONFIDENCE * 100:g} % confidence {claim}"
        said += f" {found['not_looked_up']:,} more are not in it and were not looked up: {claim} missing."
    if found["not_checkable"]:
        said += (
            f" {found['not_checkable']:,} of the ledger's are held by a device id, which Braze does not "
            "show: they were not checked."
        )
    if found.get("aside"):
        said += f" Who differs, or is unknown: {found['aside']}."
    return said


def failed(ledger: TargetLedger, found: dict[str, Any], complaints: list[str]) -> VerificationFailedError:
    """Return the error for a result that is beyond the tolerance."""
    aside = f" Who they are: {found['aside']}." if found.get("aside") else ""
    advice = " ".join(_advice(found))
    return VerificationFailedError(
        f"{ledger.target.folder} is not verified: {'; '.join(complaints)}.{aside} The import stays as it is. "
        f"{advice}".rstrip()
    )


def _advice(found: dict[str, Any]) -> Iterator[str]:
    if found.get("missing"):
        yield "Who is missing is sent again by an import with force_full=True, once, in a run of its own."
    if found.get("surplus"):
        segment = found.get("segment_id")
        yield (
            f"Look whether segment {segment} is built on this cohort, with no other filter."
            if segment
            else "Look who else writes the attribute."
        )
        yield "Else the surplus were added in Braze by somebody else, or a removal was lost."
