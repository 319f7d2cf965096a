"""Whether those whom a cohort holds exist in Braze, by a random sample.

Braze shows nobody's cohorts: for a cohort this says "exists", not "is in it". For an attribute it says both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.membership.holding import KEY, ON_KEY, load_changes, load_snapshot
from airflow_provider_heapbraze.membership.tables import literal
from airflow_provider_heapbraze.segments.bounds import as_claim, upper_bound
from airflow_provider_heapbraze.segments.lookup import KINDS, look_up

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_heapbraze.clients.braze_reads import BrazeReads
    from airflow_provider_heapbraze.membership.entries import Commit
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.tables import Workspace
    from airflow_provider_heapbraze.segments.lookup import Found, Identifier

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

    @property
    def is_everybody(self) -> bool:
        """Tell whether all were drawn who could have been."""
        return len(self.identifiers) == self.population


def draw(ledger: TargetLedger, commit: Commit, size: int) -> Sample:
    """Draw some of those whom a commit holds, each set of them equally likely.

    The commit's own random id is the seed: a task that comes back draws the same.

    :raises LedgerDamagedError: the snapshot does not hold what the log says.
    """
    kinds = ", ".join(map(literal, KINDS))
    with ledger.spaces.local() as space:
        held = load_snapshot(space, ledger, commit.snapshot, commit.size, "held")
        population = space.count(f"held WHERE kind IN ({kinds})")
        return Sample(_drawn(space, "held", commit, size), population, held - population)


def draw_leavers(ledger: TargetLedger, commit: Commit, size: int) -> list[Identifier]:
    """Draw some of those whom the commit's plan removed; whose removal was refused is held as before.

    :raises LedgerDamagedError: the plan or the snapshot does not hold what the log says.
    """
    with ledger.spaces.local() as space:
        load_changes(space, ledger, ledger.read_draft(commit.plan_id))
        load_snapshot(space, ledger, commit.snapshot, commit.size, "held")
        is_held = f"EXISTS (SELECT 1 FROM held b WHERE {ON_KEY})"
        space.sql(f"CREATE VIEW leaver AS SELECT {KEY} FROM planned a WHERE remove AND NOT {is_held}")
        return _drawn(space, "leaver", commit, size)


def _drawn(space: Workspace, table: str, commit: Commit, size: int) -> list[Identifier]:
    kinds, seed = ", ".join(map(literal, KINDS)), literal(commit.plan_id)
    return space.ask(
        f"SELECT {KEY} FROM {table} WHERE kind IN ({kinds}) "
        f"ORDER BY md5(concat_ws(chr(31), {seed}, kind, value, label)) LIMIT {size}"
    )


def check_existence(sample: Sample, reads: BrazeReads) -> dict[str, Any]:
    """Ask Braze whether the people of a sample exist.

    :returns: counts, and in ``claim`` what they prove, as a sentence.
    :raises HeapBrazeError: as :meth:`BrazeReads.profiles`.
    """
    found = _existence(sample, look_up(reads, sample.identifiers))
    claim = (
        f"{found['claim']} Whether they are in the cohort was not checked: only a segment on it shows that."
    )
    return {**found, "claim": claim}


def check_attribute_values(
    sample: Sample, leavers: Sequence[Identifier], reads: BrazeReads, attribute: str
) -> dict[str, Any]:
    """Ask Braze whether the people of a sample exist and have an attribute, and leavers have it no more.

    :param leavers: some of those whose attribute is to be false.
    :param attribute: a custom attribute that is to be true.
    :returns: counts, ``missing`` and ``surplus`` among them, and in ``claim`` what they prove, as a sentence.
    :raises HeapBrazeError: as :meth:`BrazeReads.profiles`.
    """
    found = look_up(reads, sample.identifiers, attributes=True)
    left = look_up(reads, leavers, attributes=True)
    without = sum(person.attributes.get(attribute) is not True for person in found.values())
    surplus = sum(person.attributes.get(attribute) is True for person in left.values())
    existence = _existence(sample, found)
    missing = _Finding(without, len(found), len(found) if sample.is_everybody else sample.population)
    claim = f"{existence['claim']} Of those who exist, {missing.claim('do not have the attribute')}"
    if leavers:
        claim += f" Of {len(leavers):,} who left, {surplus:,} have it still."
    return {
        **existence,
        "missing": missing.found,
        "missing_at_most": missing.at_most,
        "leavers": len(leavers),
        "surplus": surplus,
        "claim": claim,
    }


def _existence(sample: Sample, found: Mapping[Identifier, Found]) -> dict[str, Any]:
    asked = len(sample.identifiers)
    unknown = _Finding(asked - len(found), asked, sample.population)
    return {
        "check": "existence",
        "population": sample.population,
        "not_checkable": sample.not_checkable,
        "sample": asked,
        "unknown": unknown.found,
        "unknown_at_most": unknown.at_most,
        "claim": unknown.claim("do not exist in Braze"),
    }


@dataclass(frozen=True)
class _Finding:
    """How many of a sample something was found of.

    :param population: how many the sample stands for.
    """

    found: int
    sample: int
    population: int

    @property
    def at_most(self) -> float:
        """Return the share of the population that this proves not to be passed."""
        if self.sample == self.population:
            return self.found / self.sample if self.sample else 0.0
        return upper_bound(self.found, self.sample, CONFIDENCE)

    def claim(self, what: str) -> str:
        """Say what it proves, and no more."""
        said = f"{self.found:,} of {self.sample:,} {what}"
        if self.sample == self.population:
            return f"{said}: that is everybody who can be checked."
        if self.at_most == 1:
            return f"{said}: it may be so of all."
        share = as_claim(self.at_most)
        return f"{said}: fewer than {share} of who can be checked, with {CONFIDENCE * 100:g} % confidence."
