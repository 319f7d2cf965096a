"""What every engine must do: match and plan as DuckDB does, to the last bit.

Each story is a few nights of one cohort. It is told twice: with DuckDB over a file, and where the data is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.membership.attempts import begin_attempt
from airflow_provider_heapbraze.membership.damping import Damping
from airflow_provider_heapbraze.membership.entries import Commit, Settled, Target
from airflow_provider_heapbraze.membership.holding import load_snapshot, write_snapshot
from airflow_provider_heapbraze.membership.identity import IdentityMapping
from airflow_provider_heapbraze.membership.ledger import TargetLedger
from airflow_provider_heapbraze.membership.matching import match, match_folder
from airflow_provider_heapbraze.membership.members import FileMembers, SqlMembers
from airflow_provider_heapbraze.membership.planning import Request, make_plan
from airflow_provider_heapbraze.membership.spaces import Spaces

COLUMNS = ("identity", "email", "device", "identified")
MAPPING = IdentityMapping("identity", "email", "it's \\ a label", "device", "identified")
KINDS = ("external_id", "alias", "device_id")

# Texts that somebody has to quote, trim, refuse or order.
AWKWARD = [
    "it's", "a\\b", 'a"b', "${env:HOME}", "%s %(x)s", ";--", "/* */", "\\'", "zoé", "日本", "😀", "\uffff",
    " ann ", "\u00a0ann\u3000", "\x1cann\x1f", "a\nb", "a\tb", "", "   ", "x" * 987, "é" * 494, "Ann", "ann",
]  # fmt: skip
YES_OR_NO = [None, "", "true", "false", "0", "0.0", "-0e5", ".0", "1", "no", "NaN", " yes ", "2026-01-01"]


@dataclass(frozen=True)
class Night:
    """One run.

    :param rows: of the segment.
    :param answered: the share of its changes that have an answer; below 1 the run dies.
    :param refused: every so many changes one is refused; 0 none.
    :param how: arguments of its request.
    """

    rows: list[tuple[str | None, ...]]
    answered: float = 1
    refused: int = 0
    how: dict[str, Any] = field(default_factory=dict)


def person(identity=None, email=None, device=None, identified="true"):
    return identity, email, device, identified


texts = st.none() | st.sampled_from([*AWKWARD, *(f"user-{n}" for n in range(8))])
rows = st.lists(st.tuples(texts, texts, texts, st.sampled_from(YES_OR_NO)), max_size=12)
upkeep = st.fixed_dictionaries(
    {
        "reassert_share": st.sampled_from([0, 0, 0.5, 1]),
        "damping": st.sampled_from([Damping(), Damping(runs=2), Damping(hours=30)]),
        "force_full": st.sampled_from([False, False, False, True]),
    }
)
nights = st.builds(Night, rows, st.sampled_from([1, 1, 0.6, 0]), st.sampled_from([0, 0, 3]), upkeep)
stories = st.lists(nights, min_size=1, max_size=4)

SOME = [person(f"user-{n}", f"mail-{n}", f"device-{n}") for n in range(6)]
STORY = [
    Night([*SOME, *(person(text, text, text) for text in AWKWARD)], refused=4),
    Night([*SOME[2:], person(email="mail-0"), person(device="device-1", identified="no")], answered=0.5),
    Night(
        [*SOME[:3], *(person(None, text, text, "0") for text in AWKWARD)], how={"damping": Damping(runs=2)}
    ),
    Night(SOME[1:4], how={"reassert_share": 1}),
]


class EngineConformance:
    """Subclassed for every engine; its fixture ``elsewhere`` gives a place with ``table`` and ``access``."""

    def test_a_story_of_awkward_people(self, elsewhere, tmp_path):
        tell_twice(STORY, elsewhere, tmp_path)

    def test_nobody(self, elsewhere, tmp_path):
        tell_twice([Night([]), Night(SOME), Night([])], elsewhere, tmp_path)

    def test_a_cohort_moves_there_and_back(self, elsewhere, tmp_path, caplog):
        """A ledger's snapshots are brought to where the next plan is made."""
        ledger_folder = tmp_path / "ledger"
        told = [
            run(night, number, ledger_folder, elsewhere, engine, tmp_path / "members")
            for number, (night, engine) in enumerate(
                zip(STORY, ("", elsewhere.engine, "", elsewhere.engine), strict=True)
            )
        ]
        here = [run(night, number, tmp_path / "here", elsewhere, "", tmp_path / "here-members")
                for number, night in enumerate(STORY)]  # fmt: skip
        assert told == here

    @pytest.mark.parametrize("kind", ["double precision", "timestamp", "date"])
    def test_a_column_whose_text_differs_is_refused(self, elsewhere, tmp_path, kind):
        table = elsewhere.table([])
        sql = f"SELECT CAST(NULL AS {elsewhere.type(kind)}) AS identity FROM {table}"
        with pytest.raises(ConfigurationError, match=r"Column identity .* Cast it to text"):
            match(
                SqlMembers(elsewhere.engine, sql),
                IdentityMapping(),
                elsewhere.access,
                tmp_path,
                elsewhere.engine,
            )

    def test_numbers_and_booleans(self, elsewhere, tmp_path):
        table = elsewhere.table([person("7"), person("8", identified="false")])
        numbers = {"bigint": "7", elsewhere.type("decimal(20, 0)"): "7", elsewhere.type("integer"): "7"}
        for kind, text in numbers.items():
            sql = (
                f"SELECT CAST(identity AS {kind}) AS identity, identity = '7' AS known FROM {table} "
                "WHERE identity = '7'"
            )
            mapping = IdentityMapping("identity", identified="known")
            found = match(
                SqlMembers(elsewhere.engine, sql), mapping, elsewhere.access, tmp_path, elsewhere.engine
            )
            assert found.counts["external_id"] == 1
            assert held_by(tmp_path, elsewhere, found) == [("external_id", text, "")]


def tell_twice(story, elsewhere, folder):
    """Tell a story here and elsewhere; it must be the same."""
    told = {
        engine: [
            run(night, number, folder / f"ledger-{engine}", elsewhere, engine, folder / f"members-{engine}")
            for number, night in enumerate(story)
        ]
        for engine in ("", elsewhere.engine)
    }
    for number, (here, there) in enumerate(zip(told[""], told[elsewhere.engine], strict=True)):
        for what, value in here.items():
            assert there[what] == value, f"{what} of night {number + 1}"


def run(night, number, root, elsewhere, engine, folder):
    """Carry out one night; return all that may be compared."""
    matched = match(members(night.rows, elsewhere, engine, folder), MAPPING, elsewhere.access, root, engine)
    target = Target("cohort", {"cohort_id": "told twice"})
    ledger = TargetLedger(root, target, Spaces(elsewhere.access, engine))
    request = Request(
        run_id=f"run-{number}",
        match=matched,
        match_folder=match_folder(root, matched.fingerprint),
        kinds=KINDS,
        name="Told twice",
        as_of=f"2026-11-{number + 1:02}",
        **{"force_full": False, **night.how},
    )
    plan = make_plan(ledger, ledger.last(), request)
    ledger.append(plan)
    last = int(plan.rows * night.answered)
    rejected = {row: "unknown" for row in range(last) if night.refused and row % night.refused == 1}
    settled = Settled([(row, row + 1) for row in range(last) if row not in rejected], rejected, named=True)
    if plan.rows:
        begin_attempt(ledger, plan).record(settled)
    told = {
        "match": (matched.fingerprint, matched.counts),
        "plan": (plan.number, plan.held, plan.adds, plan.removes, plan.repeated, plan.name, plan.counts),
        "change": {key: value for key, value in plan.change.items() if key != "taken_at"},
        "changes": rows_of(ledger.path(plan.changes)),
        "to the last bit": plan.digest,
    }
    if last == plan.rows:
        told["held"] = commit(ledger, plan)
    return told


def members(rows, elsewhere, engine, folder):
    """Put a segment where it is read."""
    if engine:
        return SqlMembers(engine, f"SELECT * FROM {elsewhere.table(rows)} -- of tonight")
    folder.mkdir(exist_ok=True)
    columns = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    table = {name: pa.array(column, pa.string()) for name, column in zip(COLUMNS, columns, strict=True)}
    pq.write_table(pa.table(table), folder / "members.parquet")
    return FileMembers(str(folder / "members.parquet"))


def commit(ledger, plan):
    """Commit a plan; return whom the snapshot holds."""
    snapshot, size = write_snapshot(ledger, plan, ledger.settled(plan.plan_id))
    ledger.append(
        Commit(
            number=plan.number + 1,
            plan_id=plan.plan_id,
            run_id=plan.run_id,
            fingerprint=plan.fingerprint,
            snapshot=snapshot,
            size=size,
            forced=plan.forced,
            name=plan.name,
            report="reports/none.json",
            as_of=plan.as_of,
            memory=plan.handed_on,
        )
    )
    with ledger.spaces.local() as space:
        load_snapshot(space, ledger, snapshot, size, "held")
        return sorted(space.ask("SELECT kind, value, label FROM held"))


def held_by(root, elsewhere, matched):
    """Return whom a match has."""
    with Spaces(elsewhere.access).local() as space:
        folder = match_folder(root, matched.fingerprint)
        assert space.load("found", folder / matched.file_of("identifiers"))
        return sorted(space.ask("SELECT kind, value, label FROM found"))


def rows_of(file):
    """Return the rows of a Parquet file."""
    return duckdb.sql(f"SELECT * FROM read_parquet('{file}')").fetchall()
