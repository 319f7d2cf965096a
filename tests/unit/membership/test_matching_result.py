"""What a match leaves in the ledger, and what it refuses."""

from __future__ import annotations

import json
import random
from uuid import uuid4

import pyarrow.parquet as pq
import pytest
from upath import UPath

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, UnbalancedError
from airflow_provider_heapbraze.membership import matching
from airflow_provider_heapbraze.membership import rule as rule_module
from airflow_provider_heapbraze.membership.identity import IdentityMapping
from airflow_provider_heapbraze.membership.matching import match, read_match
from airflow_provider_heapbraze.membership.members import FileMembers, SqlMembers
from airflow_provider_heapbraze.membership.rule import rule
from tests.unit.membership.members_conformance import Access, outcome, table

MAPPING = IdentityMapping("id", "alias", "label", "device")
ROWS = [
    ("ann", None, "phone-1"),
    (None, "bob", None),
    (None, None, "phone-2"),
    ("ann", "other", None),
    (" ", None, None),
    ("x" * 988, None, "phone-3"),
]
COUNTS = {
    "members": 6,
    "matched": 3,
    "external_id": 1,
    "alias": 1,
    "device_id": 1,
    "duplicates": 1,
    "unmatched": {"blank": 1, "too_long": 1},
}


def matched(ledger, rows=ROWS, mapping=MAPPING, size=4):
    chunks = [rows[start : start + size] for start in range(0, len(rows), size)]
    return match(
        SqlMembers("warehouse", "SELECT people"), mapping, Access(["id", "alias", "device"], chunks), ledger
    )


def test_result(tmp_path):
    result = matched(tmp_path)
    folder = tmp_path / "matches" / result.fingerprint
    assert result.counts == COUNTS
    assert result.uri == f"file://{folder}"
    assert read_match(folder) == result
    assert read_match(folder).taken_at == result.taken_at
    assert {path.name for path in folder.iterdir()} == {"match.json", "used", *result.digests}
    identifiers, unmatched = outcome(result, tmp_path)
    assert sorted(identifiers) == [
        ("alias", "bob", "label"),
        ("device_id", "phone-2", ""),
        ("external_id", "ann", ""),
    ]
    others = sorted(tuple(row.values()) for row in table(result, tmp_path, "others"))
    ann = ("external_id", "ann", "")
    assert others == [("alias", "other", "label", *ann), ("device_id", "phone-1", "", *ann)]
    assert unmatched == [
        {
            "row": 5,
            "reason": "blank",
            "external_id": " ",
            "alias_name": None,
            "device_id": None,
            "identified": None,
        },
        {
            "row": 6,
            "reason": "too_long",
            "external_id": "x" * 988,
            "alias_name": None,
            "device_id": "phone-3",
            "identified": None,
        },
    ]


def test_columns_of_the_files_do_not_depend_on_what_is_in_them(tmp_path):
    for rows in (ROWS, []):
        result = matched(tmp_path, rows)
        folder = tmp_path / "matches" / result.fingerprint
        chosen, owner = ("kind", "value", "label"), ("of_kind", "of_value", "of_label")
        for name, columns in (("identifiers", chosen), ("others", chosen + owner)):
            fields = pq.read_schema(folder / result.file_of(name))
            found = [(field.name, str(field.type)) for field in fields]
            assert found == [(column, "string") for column in columns]
        types = [str(field.type) for field in pq.read_schema(folder / result.file_of("unmatched"))]
        assert types == ["int64", *["string"] * 5]


def test_nothing_private_but_in_the_tables(tmp_path, caplog):
    caplog.set_level(0)
    result = matched(tmp_path)
    record = json.loads((tmp_path / "matches" / result.fingerprint / "match.json").read_text())
    made_at = record.pop("made_at")
    assert made_at.endswith("+00:00")
    assert record.pop("digests") == {
        f"{name}-{digest}.parquet": digest
        for name, digest in zip(("identifiers", "others", "unmatched"), result.digests.values(), strict=True)
    }
    assert record.pop("taken_at") == result.taken_at.isoformat()
    assert record == {
        "format": 3,
        "engine": "",
        "fingerprint": result.fingerprint,
        "counts": COUNTS,
        "mapping": {
            "external_id": "id",
            "alias_name": "alias",
            "alias_label": "label",
            "device_id": "device",
            "identified": None,
        },
    }
    assert "ann" not in repr(result) + caplog.text


def test_the_fingerprint_is_of_the_content_not_of_its_order(tmp_path):
    result = matched(tmp_path)
    for seed in range(3):
        shuffled = random.Random(seed).sample(ROWS, len(ROWS))
        assert matched(tmp_path / str(seed), shuffled, size=seed + 1).fingerprint == result.fingerprint
    assert len(result.fingerprint) == 32


@pytest.mark.parametrize(
    ("rows", "mapping"),
    [
        (ROWS[1:], MAPPING),  # one duplicate less
        ([*ROWS, (None, None, None)], MAPPING),
        ([("anna", None, None), *ROWS[1:3], ("anna", None, None), *ROWS[4:]], MAPPING),
        (ROWS, IdentityMapping("id", "alias", "other label", "device")),
        (ROWS, IdentityMapping("alias", "id", "label", "device")),
        ([*ROWS[:3], ("ann", "another", None), *ROWS[4:]], MAPPING),  # another alias beside the external id
        ([*ROWS[:3], ("ann", None, "other"), *ROWS[4:]], MAPPING),
        ([*ROWS[:4], ("  ", None, None), ROWS[5]], MAPPING),  # another blank
    ],
)
def test_another_content_has_another_fingerprint(tmp_path, rows, mapping):
    assert matched(tmp_path, rows, mapping).fingerprint != matched(tmp_path).fingerprint


def test_label_and_value_are_not_mixed_up(tmp_path):
    one = matched(tmp_path, [(None, "ab", None)], IdentityMapping(None, "alias", "c"))
    other = matched(tmp_path, [(None, "a", None)], IdentityMapping(None, "alias", "bc"))
    assert one.counts == other.counts
    assert one.fingerprint != other.fingerprint


def test_the_same_again_keeps_what_is_there(tmp_path):
    folder = tmp_path / "matches" / matched(tmp_path).fingerprint
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    matched(tmp_path)
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    _, before_used = before.pop("used")
    _, used = after.pop("used")
    assert after == before
    assert used > before_used, "pruning goes by that"


@pytest.mark.parametrize("lost", ["identifiers-*", "others-*", "unmatched-*", "match.json"])
def test_what_was_lost_is_made_again(tmp_path, lost):
    result = matched(tmp_path)
    [file] = (tmp_path / "matches" / result.fingerprint).glob(lost)
    file.unlink()
    assert matched(tmp_path) == result
    assert [len(rows) for rows in outcome(result, tmp_path)] == [3, 2]


@pytest.mark.parametrize("torn", ["identifiers", "others", "unmatched"])
@pytest.mark.parametrize(
    "damage",
    [lambda content: b"", lambda content: content[:40], lambda content: content[:60][::-1] + content[60:]],
    ids=["emptied", "cut off", "changed within"],
)
def test_what_was_damaged_is_made_again(tmp_path, torn, damage):
    result = matched(tmp_path)
    folder = tmp_path / "matches" / result.fingerprint
    file = folder / result.file_of(torn)
    file.write_bytes(damage(file.read_bytes()))
    again = matched(tmp_path)
    assert again == result
    assert [len(rows) for rows in outcome(again, tmp_path)] == [3, 2]
    assert pq.ParquetFile(folder / again.file_of(torn)).metadata is not None


def test_a_result_of_an_earlier_version_is_made_again(tmp_path):
    result = matched(tmp_path)
    file = tmp_path / "matches" / result.fingerprint / "match.json"
    record = json.loads(file.read_bytes())
    del record["digests"]
    file.write_text(json.dumps(record))
    assert matched(tmp_path) == read_match(file.parent) == result
    assert "digests" in json.loads(file.read_bytes())


def test_a_damaged_record_is_made_again(tmp_path):
    result = matched(tmp_path)
    folder = tmp_path / "matches" / result.fingerprint
    (folder / "match.json").write_bytes(b"{")
    assert matched(tmp_path) == read_match(folder) == result


def test_a_storage_that_cannot_be_reached_is_another_error(tmp_path, monkeypatch):
    def fail(*args):
        raise PermissionError("no access")

    monkeypatch.setattr("pathlib.Path.read_bytes", fail)
    with pytest.raises(PermissionError):
        read_match(tmp_path)


@pytest.mark.parametrize(
    "record", [b"", b"{", b"[]", b"{}", b'{"format": 2}', b'{"format": 3}', b"\xff", None]
)
def test_a_record_that_cannot_be_read(tmp_path, record):
    if record is not None:
        (tmp_path / "match.json").write_bytes(record)
    with pytest.raises(LedgerDamagedError, match="Nothing was sent"):
        read_match(tmp_path)


def test_a_ledger_in_an_object_store(tmp_path):
    ledger = UPath(f"memory://{uuid4().hex}/ledger")
    result = matched(ledger)
    assert result == matched(ledger)
    assert result.uri == f"{ledger}/matches/{result.fingerprint}"
    assert read_match(UPath(result.uri)).counts == COUNTS
    with (UPath(result.uri) / result.file_of("identifiers")).open("rb") as file:
        assert pq.read_table(file).num_rows == 3


@pytest.mark.parametrize(
    ("counts", "balanced"),
    [
        (COUNTS, True),
        (COUNTS | {"members": 7}, False),
        (COUNTS | {"duplicates": 0}, False),
        (COUNTS | {"unmatched": {}}, False),
        (COUNTS | {"alias": 0}, False),
    ],
)
def test_counts_have_to_add_up(counts, balanced):
    if balanced:
        assert matching.balanced(counts, IdentityMapping.kinds) == counts
    else:
        with pytest.raises(UnbalancedError, match="does not add up"):
            matching.balanced(counts, IdentityMapping.kinds)


def test_a_row_that_nobody_accounts_for_is_noticed(tmp_path, monkeypatch):
    """Invariant: every row is accounted for, or nothing is written."""

    def without_a_reason(*cells, **how):
        return f"SELECT * REPLACE (nullif(reason, 'blank') AS reason) FROM ({rule(*cells, **how)})"

    monkeypatch.setattr(rule_module, "rule", without_a_reason)
    with pytest.raises(UnbalancedError, match="'members': 6"):
        matched(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (IdentityMapping(None), "maps no identifier"),
        (IdentityMapping("", identified="known"), "maps no identifier"),
        (IdentityMapping("id", alias_name="alias"), "only one of alias_name and alias_label"),
        (
            IdentityMapping("id", alias_name="alias", alias_label=" "),
            "only one of alias_name and alias_label",
        ),
        (IdentityMapping("id", alias_label="label"), "only one of alias_name and alias_label"),
    ],
)
def test_a_mapping_that_cannot_be_used(tmp_path, mapping, message):
    with pytest.raises(ConfigurationError, match=message):
        matched(tmp_path, mapping=mapping)


def test_many_rows_keep_their_numbers(tmp_path):
    lines = "".join(f"user-{n},{'x' * 100}\n" if n % 10_000 else ",\n" for n in range(200_000))
    (tmp_path / "members.csv").write_text("identity,notes\n" + lines)
    result = match(FileMembers(str(tmp_path / "members.csv")), IdentityMapping(), Access(), tmp_path)
    _, unmatched = outcome(result, tmp_path)
    assert [row["row"] for row in unmatched] == list(range(1, 200_000, 10_000))
    assert result.counts["external_id"] == 199_980
