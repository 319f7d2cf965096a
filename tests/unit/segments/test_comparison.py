"""Person by person, against a model in plain Python that shares nothing with the SQL."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, UnbalancedError
from airflow_provider_heapbraze.segments import comparison
from airflow_provider_heapbraze.segments.bounds import upper_bound
from airflow_provider_heapbraze.segments.comparison import COMPARED_FIELDS, compare
from airflow_provider_heapbraze.segments.exported import COLUMNS
from tests.unit.segments.holding import (
    COMMIT,
    alias,
    archives_of,
    device,
    external,
    findings,
    holding,
    ledger_in,
    zipped,
)

ODD = (
    "person\"with'quotes-01",
    "person\nwith\r\nnewlines\t02",
    "person-ünïcode-🙂-漢字-03",
    "PERSON-ÜNÏCODE-🙂-漢字-03",
    "person\\with\\backslashes-04",
    " person with spaces 05 ",
    "person\u2028with\u0085separators-06",
    "person-with-\u0000-nothing-07",
    "'; DROP TABLE held; -- 08",
    '{"external_id": "person-09"}',
    "person-very-long-" + "0123456789" * 5000,
    "null-as-a-text",
)
LABELS = ("email", "crm", "la\"bel'\n")
texts = st.sampled_from(ODD) | st.text(st.characters(exclude_categories=["Cs"]), min_size=12, max_size=20)


@dataclass(frozen=True)
class User:
    """A user in Braze.

    :param shown: how often the export shows them; 0: they are not in the segment.
    """

    number: int
    external_id: str | None
    aliases: tuple[tuple[str, str], ...]
    shown: int

    @property
    def device_id(self):
        return f"device-{self.number:08}"

    @property
    def braze_id(self):
        return f"braze-{self.number:08}"

    @property
    def visible(self):
        """The identifiers that Braze shows."""
        return {
            *([external(self.external_id)] if self.external_id is not None else []),
            *(alias(*one) for one in self.aliases),
        }

    @property
    def chosen(self):
        """The identifier that names them in a finding."""
        if self.external_id is not None:
            return external(self.external_id)
        return min(self.visible, default=("braze_id", self.braze_id, ""))

    def line(self, empty):
        """Return their line in an export; what is empty is left out, or null, or empty."""
        aliases = [{"alias_name": name, "alias_label": label} for name, label in self.aliases]
        fields = {"braze_id": self.braze_id, "external_id": self.external_id, "user_aliases": aliases}
        if empty == "absent":
            return {name: value for name, value in fields.items() if value}
        return {name: value or (None if empty == "null" else value) for name, value in fields.items()}

    def new(self):
        aliases = [{"alias_name": name, "alias_label": label} for name, label in self.aliases]
        return {"external_id": self.external_id, "aliases": aliases, "device_ids": [self.device_id]}


@st.composite
def scenes(draw):
    """Users, and who is held. Few values stand for many things: an id is another person's alias, too."""
    values = draw(st.lists(texts, min_size=5, max_size=6, unique=True))
    ids = draw(st.permutations(values))
    pairs = draw(st.permutations([(value, label) for value in values for label in LABELS]))
    users = []
    for number in range(draw(st.integers(1, 5))):
        taken = draw(st.integers(0, 3))
        has_id = draw(st.booleans())
        users.append(
            User(
                number,
                ids[number] if has_id else None,
                tuple(pairs[number * 3 : number * 3 + taken]),
                draw(st.sampled_from([0, 1, 1, 2])),
            )
        )
    possible = [external(value) for value in values] + [alias(*pair) for pair in pairs]
    held = draw(st.sets(st.sampled_from(possible), max_size=12))
    if draw(st.booleans()):
        held |= draw(st.sets(st.sampled_from([device(f"device-{n:08}") for n in range(6)])))
    return users, held


KINDS_OF_FINDINGS = ("missing", "surplus", "unknown", "not_looked_up")
PARTS = ("found", "missing", "unknown", "not_looked_up", "not_checkable")


def model(users, held):
    """Return the counts and the findings as they must be where everybody who is absent is looked up."""
    checkable = {one for one in held if one[0] != "device_id"}
    shown = [user for user in users if user.shown]
    seen = {one for user in shown for one in user.visible}
    known = {one for user in users for one in user.visible}
    found = {("missing" if one in known else "unknown", *one) for one in checkable - seen}
    for user in shown:
        is_judged = user.visible or checkable == held
        if is_judged and not user.visible & held:
            found.add(("surplus", *user.chosen))
    counts = {
        "check": "segment",
        "held": len(held),
        "found": len(checkable & seen),
        "not_checkable": len(held - checkable),
        "in_segment": sum(user.shown for user in users),
    }
    kinds = [finding for finding, *_ in found]
    return {**counts, **{name: kinds.count(name) for name in KINDS_OF_FINDINGS}}, found


def exported(folder, users, empty, *, ascii_only):
    """Pack the lines into two archives, the second of two files."""
    lines = [
        json.dumps(user.line(empty), ensure_ascii=ascii_only)
        for turn in (1, 2)
        for user in users
        if user.shown >= turn
    ]
    third = len(lines) // 3
    return archives_of(
        zipped(folder / "one.zip", lines[:third]),
        zipped(folder / "two.zip", lines[third : 2 * third], lines[2 * third :]),
    )


@given(scenes(), st.sampled_from(["absent", "null", "empty"]), st.booleans(), st.sampled_from([1, 3, 99]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_everybody_is_where_the_model_says(braze, fresh_reads, scene, empty, ascii_only, most):
    users, held = scene
    braze.reset()
    braze.add_users([user.new() for user in users])
    with (
        tempfile.TemporaryDirectory() as name,
        fresh_reads() as reads,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(comparison, "MOST_LOOKED_UP", most)
        folder = Path(name)
        ledger, commit = holding(folder / "ledger", held)
        result = compare(ledger, commit, exported(folder, users, empty, ascii_only=ascii_only), reads)
        found = findings(result)
        counts, expected = modelled(
            users, held, most, [row[1:] for row in found if row[0] == "not_looked_up"]
        )
        assert {key: value for key, value in result.items() if key != "aside"} == counts
        assert found == sorted(expected)
        assert counts["held"] == sum(result[key] for key in PARTS)
        assert (result["aside"] is None) == (not found)


def modelled(users, held, most, not_looked_up):
    """Return the model, with those whom chance has left out in a place of their own."""
    counts, found = model(users, held)
    absent = {row for row in found if row[0] in {"missing", "unknown"}}
    passed_over = {row for row in absent if row[1:] in not_looked_up}
    assert len(not_looked_up) == len(passed_over) == max(0, len(absent) - most)
    for name, *_ in passed_over:
        counts[name] -= 1
    if passed_over:
        counts["not_looked_up"] = len(passed_over)
        counts["missing_at_most"] = upper_bound(counts["missing"], most, 0.95)
    return counts, (found - passed_over) | {("not_looked_up", *row[1:]) for row in passed_over}


def test_who_is_looked_up_is_chance_and_the_same_for_one_commit(braze, reads, tmp_path, monkeypatch):
    people = [external(f"person-{n:08}") for n in range(200)]
    braze.add_users([{"external_id": value} for _, value, _ in people[100:]])
    monkeypatch.setattr(comparison, "MOST_LOOKED_UP", 60)
    nobody = archives_of(zipped(tmp_path / "a.zip"))
    ledger, commit = holding(tmp_path / "ledger", people)
    first, again, other = (
        compare(ledger, replace(commit, plan_id=plan_id), nobody, reads)
        for plan_id in (commit.plan_id, commit.plan_id, "00000006-000000000000")
    )
    assert (first["missing"] + first["unknown"], first["not_looked_up"]) == (60, 140)
    assert first["missing_at_most"] == upper_bound(first["missing"], 60, 0.95) > 0.3
    assert 10 < first["missing"] < 50, "it is not the first in any order"
    assert findings(first) == findings(again) != findings(other)
    asked = [entry["ids"]["get"]["external_id"] for entry in braze.requests()]
    assert asked == [50, 10] * 3


def test_where_all_are_looked_up_there_is_no_bound(braze, reads, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "MOST_LOOKED_UP", 3)
    ledger, commit = holding(tmp_path / "ledger", [external(f"person-{n:08}") for n in range(3)])
    result = compare(ledger, commit, archives_of(zipped(tmp_path / "a.zip")), reads)
    assert (result["unknown"], result["not_looked_up"]) == (3, 0)
    assert "missing_at_most" not in result


def test_what_is_compared_is_what_is_read():
    assert set(COMPARED_FIELDS) == set(COLUMNS)


def test_only_those_who_are_not_in_the_segment_are_asked_for(braze, reads, tmp_path):
    people = [external(f"person-{n:08}") for n in range(120)]
    braze.add_users([{"external_id": value} for _, value, _ in people[:110]])
    archive = zipped(tmp_path / "a.zip", [{"external_id": value} for _, value, _ in people[:60]])
    ledger, commit = holding(tmp_path / "ledger", people)
    result = compare(ledger, commit, archives_of(archive), reads)
    assert (result["found"], result["missing"], result["unknown"]) == (60, 50, 10)
    asked = [entry["ids"]["get"] for entry in braze.requests() if entry["endpoint"] == "users-export-ids"]
    assert asked == [{"external_id": 50}, {"external_id": 10}]
    assert ledger.uri("verifications/00000007-") in result["aside"]


def test_people_without_any_id_count_one_by_one(reads, tmp_path):
    """Braze was asked for its own id of everybody; where it gives none, nobody is lost all the same."""
    archive = zipped(tmp_path / "a.zip", [{}, {}, {"braze_id": "braze-00000001"}, {"user_aliases": []}])
    ledger, commit = holding(tmp_path / "ledger", [])
    result = compare(ledger, commit, archives_of(archive), reads)
    assert (result["in_segment"], result["surplus"]) == (4, 4)


def test_nobody_is_held_and_nobody_is_in_the_segment(braze, reads, tmp_path):
    ledger, commit = holding(tmp_path / "ledger", [])
    result = compare(ledger, commit, archives_of(zipped(tmp_path / "a.zip")), reads)
    names = ("held", "in_segment", "surplus", *PARTS)
    assert result == {"check": "segment", **dict.fromkeys(names, 0), "aside": None}
    assert braze.requests() == []


def test_an_alias_without_name_or_label_is_none(reads, tmp_path):
    lines = [
        {"braze_id": "braze-00000001", "user_aliases": [None]},
        {"braze_id": "braze-00000002", "user_aliases": [{"alias_name": "person-alias-1"}]},
        {"braze_id": "braze-00000003", "user_aliases": [{"alias_label": "email"}]},
        {
            "braze_id": "braze-00000004",
            "user_aliases": [
                None,
                {"alias_name": "b", "alias_label": "a"},
                {"alias_name": "a", "alias_label": "b"},
            ],
        },
    ]
    archive = zipped(tmp_path / "a.zip", lines)
    ledger, commit = holding(tmp_path / "ledger", [])
    assert findings(compare(ledger, commit, archives_of(archive), reads)) == [
        ("surplus", "alias", "a", "b"),
        *(("surplus", "braze_id", f"braze-0000000{n}", "") for n in (1, 2, 3)),
    ]
    # Where somebody is held by a device id, these may be them.
    held, commit = holding(tmp_path / "other", [device("device-00000001")])
    assert compare(held, commit, archives_of(archive), reads)["surplus"] == 1


@pytest.mark.parametrize("size", [1, 3])
def test_a_snapshot_that_is_not_as_logged(reads, tmp_path, size):
    ledger, commit = holding(tmp_path, [external("person-00000001"), external("person-00000002")])
    commit = replace(commit, size=size)
    with pytest.raises(LedgerDamagedError, match="does not hold what the log says"):
        compare(ledger, commit, archives_of(), reads)


def test_a_snapshot_that_is_gone(reads, tmp_path):
    commit = replace(COMMIT, snapshot="snapshots/gone.parquet", size=1)
    with pytest.raises(LedgerDamagedError, match="missing"):
        compare(ledger_in(tmp_path), commit, archives_of(), reads)


def test_somebody_of_no_kind_is_not_passed_over(reads, tmp_path):
    ledger, commit = holding(tmp_path, [external("person-00000001"), (None, "person-00000002", "")])
    with pytest.raises(UnbalancedError, match="'held': 2, 'found': 0") as caught:
        compare(ledger, commit, archives_of(zipped(tmp_path / "a.zip")), reads)
    assert "person" not in str(caught.value)
    assert not ledger.path("verifications").exists()
