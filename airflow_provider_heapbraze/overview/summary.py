"""One record of the ledger at a glance, and one of its runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.ledger_check.account import UNFINISHED, WAITS, WHOLE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow_provider_heapbraze.membership.judged import Judgement
FINISHED, OPEN, TAKEN_OVER, DRAFTED = "finished", "open", "taken over", "not carried out"


@dataclass(frozen=True)
class Verified:
    """What the newest look at the other side found.

    :param number: entry of the log that was looked at.
    :param run_id: of the run whose entry that is.
    :param at: when, ISO 8601, UTC.
    :param checked: how many people were compared or looked up.
    :param wrong: how many of them were missing or surplus.
    :param unknown: how many the other side does not know.
    :param claim: what that proves, as a sentence; empty where everybody was compared.
    """

    number: int
    run_id: str
    at: str
    checked: int
    wrong: int
    unknown: int
    claim: str

    @classmethod
    def of(cls, number: int, record: Mapping[str, Any]) -> Verified:
        """Read a verification as the ledger has it."""
        compared = record.get("check") == "segment"
        checked = (
            record.get("held", 0) - record.get("not_checkable", 0) if compared else record.get("sample", 0)
        )
        return cls(
            number=number,
            run_id=record.get("verified_run_id", ""),
            at=record.get("verified_at", ""),
            checked=checked,
            wrong=record.get("missing", 0) + record.get("surplus", 0),
            unknown=record.get("unknown", 0),
            claim=record.get("claim", ""),
        )


@dataclass(frozen=True)
class Waiting:
    """A plan that is newer than the log: a guard stopped it, or it waits for its import.

    :param at: when it was made, ISO 8601, UTC.
    """

    run_id: str
    at: str


@dataclass(frozen=True)
class Past:
    """What a run left.

    :param value: identifiers held at its end, or events that it sent.
    """

    run_id: str
    value: int


@dataclass(frozen=True)
class Summary:
    """One target or source, as a list shows it.

    :param group: ``targets`` or ``sources``.
    :param folder: its name in the ledger.
    :param kind: ``cohort``, ``attribute``, ``property`` or ``source``; empty where it is not known.
    :param name: what people call it.
    :param key: its id, or its location.
    :param host: where it is; a Heap environment is a hash.
    :param number: the newest entry of its log, 0 without one.
    :param state: ``whole``, ``unfinished`` or ``damaged``, by the newest entry and what it names.
    :param run_id: of the newest entry that can be read; empty where there is none.
    :param at: when that was, ISO 8601, UTC.
    :param size: identifiers that are held.
    :param adds: in the last run that ended; so are ``removes`` and ``match_rate``.
    :param past: the last runs that ended, oldest first.
    :param waiting: None where no plan waits.
    :param events: what became of the events of the last run of a source.
    """

    group: str
    folder: str
    number: int
    state: str
    kind: str = ""
    name: str = ""
    key: str = ""
    host: str = ""
    run_id: str = ""
    at: str = ""
    size: int | None = None
    adds: int | None = None
    removes: int | None = None
    match_rate: float | None = None
    past: list[Past] = field(default_factory=list)
    verified: Verified | None = None
    waiting: Waiting | None = None
    events: dict[str, int] | None = None

    def __post_init__(self) -> None:
        """Make sure that a page can show it: a ledger is written by many versions, and by hand.

        :raises TypeError, ValueError: it cannot.
        """
        parts = [part for part in (*self.past, self.verified, self.waiting) if part]
        texts = [self.kind, self.name, self.key, self.host, self.run_id, self.at]
        numbers = [self.size, self.adds, self.removes, self.match_rate, *self.trend]
        if not all(isinstance(text, str) for text in [*texts, *(part.run_id for part in parts)]):
            raise TypeError
        if not all(value is None or isinstance(value, int | float) for value in numbers):
            raise TypeError
        for at in (self.at, self.verified and self.verified.at, self.waiting and self.waiting.at):
            if at and datetime.fromisoformat(at).tzinfo is None:
                raise ValueError

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Summary:
        """Read a summary as it was written down.

        :raises LookupError, TypeError, ValueError: by another version.
        """
        parts = {
            "past": [Past(**past) for past in record["past"]],
            "verified": Verified(**record["verified"]) if record["verified"] else None,
            "waiting": Waiting(**record["waiting"]) if record["waiting"] else None,
        }
        return cls(**{**record, **parts})

    @property
    def dag_id(self) -> str:
        """Return the DAG of the newest run."""
        return dag_of(self.run_id)

    @property
    def shown_state(self) -> str:
        """Return the state as people see it; who does not see the plan that waits sees nothing of it here."""
        nothing_open = self.state == WHOLE or (self.state == UNFINISHED and not self.number)
        return WAITS if self.waiting and nothing_open else self.state

    @property
    def trend(self) -> list[int]:
        """Return what the last runs left, oldest first."""
        return [past.value for past in self.past]

    def seen_by(self, dags: Collection[str]) -> Summary:
        """Return what those see of it who may see these DAGs: runs of another DAG are that DAG's."""
        parts: list[Past | Verified | Waiting | None] = [*self.past, self.verified, self.waiting]
        if all(dag_of(part.run_id) in dags for part in parts if part):
            return self  # as of a thousand records almost all are
        return replace(
            self,
            past=[past for past in self.past if dag_of(past.run_id) in dags],
            verified=self.verified if self.verified and dag_of(self.verified.run_id) in dags else None,
            waiting=self.waiting if self.waiting and dag_of(self.waiting.run_id) in dags else None,
        )

    def shown(self) -> dict[str, Any]:
        """Return it for a program."""
        return {**asdict(self), "state": self.shown_state, "dag_id": self.dag_id}


@dataclass(frozen=True)
class Run:
    """One run of a target or a source.

    :param number: its newest entry in the log.
    :param state: ``finished``, ``open``, ``taken over`` or ``not carried out``.
    :param at: when it ended, or began where it has not; ISO 8601, UTC.
    :param report: what it did, where it ended.
    :param plan: its plan; of a target alone.
    :param judgement: what guards found about its plan, where it was not carried out.
    """

    number: int
    run_id: str
    state: str
    at: str
    report: dict[str, Any] | None = None
    plan: dict[str, Any] | None = None
    verified: Verified | None = None
    judgement: Judgement | None = None

    @property
    def dag_id(self) -> str:
        """Return the DAG of the run."""
        return dag_of(self.run_id)

    @property
    def steps(self) -> dict[str, Any]:
        """Return the waterfall; of a plan that was not carried out, as far as it goes."""
        if self.report:
            return dict(self.report.get("waterfall", {}))
        return dict(self.plan["counts"]) if self.plan else {}

    @property
    def size(self) -> int | None:
        """Return how many identifiers were held at its end."""
        return self.report.get("size") if self.report else None

    @property
    def adds(self) -> int | None:
        """Return how many people entered, without those who were only sent again."""
        return self._changed("adds")

    @property
    def removes(self) -> int | None:
        """Return how many people left, without those who were only sent again."""
        return self._changed("removes")

    @property
    def match_rate(self) -> float | None:
        """Return the share of members with an identifier, 0 to 1."""
        members = self.steps.get("members")
        return (members - sum(self.steps["unmatched"].values())) / members if members else None

    @property
    def requests_per_second(self) -> float | None:
        """Return how fast requests followed each other, on average; None where fewer than two did."""
        if not self.report or not self.report.get("seconds"):
            return None
        # Before the first one nobody waited.
        gaps = self.report["requests"]["requests"] - 1
        return float(gaps / self.report["seconds"]) if gaps > 0 else None

    def shown(self) -> dict[str, Any]:
        """Return what a page shows of it, for a program; nothing else of its report or its plan."""
        numbers = ("adds", "removes", "size", "match_rate", "requests_per_second")
        report = self.report or {}
        return {
            "number": self.number,
            "run_id": self.run_id,
            "state": self.state,
            "at": self.at,
            **{name: getattr(self, name) for name in numbers},
            "waterfall": self.steps,
            "requests": report.get("requests"),
            "seconds": report.get("seconds"),
            "report_uri": report.get("report_uri"),
            "verified": asdict(self.verified) if self.verified else None,
            "breaches": self.judgement.shown() if self.judgement else [],
        }

    def _changed(self, name: str) -> int | None:
        changes = (self.plan or {}).get("change") or self.steps
        return changes.get(name)


def dag_of(run_id: str) -> str:
    """Return the DAG of a run, ``<DAG>/<run>/<task>``; empty where it is none of Airflow's."""
    dag_id, separator, _ = run_id.partition("/")
    return dag_id if separator else ""


def as_iso(seconds: float) -> str:
    """Return a time, UTC epoch seconds, as ISO 8601; empty for 0."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else ""
