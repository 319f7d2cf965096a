"""Whether those whom a cohort holds exist in Braze, by a random sample.

Braze shows nobody's cohorts: for a cohort this says "exists", not "is in it". For an attribute it says both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.membership.planning import KEY, load_snapshot
from airflow_provider_heapbraze.membership.tables import literal, workspace
from airflow_provider_heapbraze.segments.bounds import as_claim, upper_bound
from airflow_provider_heapbraze.segments.lookup import KINDS, look_up

if TYPE_CHECKING:
    from airflow_provider_heapbraze.clients.braze_reads import BrazeReads
    from airflow_provider_heapbraze.membership.entries import Commit
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.segments.lookup import Identifier

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Sample:
    """Identifiers drawn at random; the repr shows none.

    :param population: how many could have been drawn.
    :param not_checkable: held identifiers of kinds that Braze is not asked for in bulk: device ids.
    """

    identifiers: list[Identifier] = field(repr=False)
    population: int
    not_checkable: int


def draw(ledger: TargetLedger, commit: Commit, size: int) -> Sample:
    """Draw some of those whom a commit holds, each set of them equally likely.

    The commit's own random id is the seed: a task that comes back draws the same.

    :raises LedgerDamagedError: the snapshot does not hold what the log says.
    """
    kinds = ", ".join(map(literal, KINDS))
    seed = literal(commit.plan_id)
    with workspace() as space:
        held = load_snapshot(space, ledger, commit.snapshot, commit.size, "held")
        population = space.count(f"held WHERE kind IN ({kinds})")
        drawn = space.ask(
            f"SELECT {KEY} FROM held WHERE kind IN ({kinds}) "
            f"ORDER BY md5(concat_ws(chr(31), {seed}, kind, value, label)) LIMIT {size}"
        )
    return Sample(drawn, population, held - population)


def check_existence(sample: Sample, reads: BrazeReads, attribute: str | None) -> dict[str, Any]:
    """Ask Braze for the people of a sample.

    :param attribute: the custom attribute that is to be true, where they were delivered as one.
    :returns: counts, and in ``claim`` what they prove, as a sentence.
    :raises HeapBrazeError: as :meth:`BrazeReads.profiles`.
    """
    found = look_up(reads, sample.identifiers, attributes=attribute is not None)
    asked = len(sample.identifiers)
    unknown = _Finding(asked - len(found), asked, whole=asked == sample.population)
    result = {
        "check": "existence",
        "population": sample.population,
        "not_checkable": sample.not_checkable,
        "sample": asked,
        "unknown": unknown.found,
        "unknown_at_most": unknown.at_most,
        "claim": unknown.claim("do not exist in Braze"),
    }
    if attribute is None:
        return result
    without = sum(person.attributes.get(attribute) is not True for person in found.values())
    missing = _Finding(without, len(found), whole=unknown.whole)
    return {
        **result,
        "missing": missing.found,
        "missing_at_most": missing.at_most,
        "claim": f"{result['claim']} Of those who exist, {missing.claim('do not have the attribute')}",
    }


@dataclass(frozen=True)
class _Finding:
    """How many of a sample something was found of.

    :param whole: whether the sample is everybody.
    """

    found: int
    sample: int
    whole: bool

    @property
    def at_most(self) -> float:
        """Return the share of all that this proves not to be passed."""
        if self.whole:
            return self.found / self.sample if self.sample else 0.0
        return upper_bound(self.found, self.sample, CONFIDENCE)

    def claim(self, what: str) -> str:
        """Say what it proves, and no more."""
        said = f"{self.found:,} of {self.sample:,} {what}"
        if self.whole:
            return f"{said}: that is everybody."
        if self.at_most == 1:
            return f"{said}: it may be so of all."
        return f"{said}: fewer than {as_claim(self.at_most)} of all, with {CONFIDENCE * 100:g} % confidence."
