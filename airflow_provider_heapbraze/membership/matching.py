"""One identifier per member, or the reason why there is none.

The rule (Braze: Heap, user matching): an identified user is matched by external id or alias, an anonymous one
by device id. Someone identified is never matched by device id, since Braze ignores that.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.membership.errors import LedgerDamagedError, UnbalancedError
from airflow_provider_heapbraze.membership.members import reading
from airflow_provider_heapbraze.membership.tables import workspace
from airflow_provider_heapbraze.membership.values import identified_expression, text_and_problem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from airflow_provider_heapbraze.membership.members import Access, Members
    from airflow_provider_heapbraze.membership.tables import Workspace

FORMAT = 1
KINDS = ("external_id", "alias", "device_id")


@dataclass
class IdentityMapping:
    """Which column of a segment holds which identifier.

    An identified row is matched by external id, then alias; another one by external id, then device id, then
    alias. The first value that can be used is taken.

    :param external_id: column whose value is Braze's external id.
    :param alias_name: column whose value is the name of a user alias.
    :param alias_label: the label of all these aliases; not a column.
    :param device_id: column with the device id.
    :param identified: column that tells whether a row is an identified user. Without it a row is one that has
        an external id (or, where none is mapped, an alias), usable or not.
    """

    template_fields: ClassVar[Sequence[str]] = (
        "external_id",
        "alias_name",
        "alias_label",
        "device_id",
        "identified",
    )

    external_id: str | None = "identity"
    alias_name: str | None = None
    alias_label: str | None = None
    device_id: str | None = None
    identified: str | None = None

    def check(self) -> None:
        """Make sure that the mapping can be used.

        :raises ConfigurationError: no identifier is mapped, or an alias without a label.
        """
        if not (self.external_id or self.alias_name or self.device_id):
            raise ConfigurationError(
                "IdentityMapping maps no identifier: name the column of the external id, the alias or the "
                "device id. Nothing was sent."
            )
        if bool(self.alias_name) != bool(self.alias_label and self.alias_label.strip()):
            raise ConfigurationError(
                "IdentityMapping needs alias_name (a column) and alias_label (the label of all aliases) "
                "together. Nothing was sent."
            )

    @property
    def columns(self) -> list[str]:
        """Return the names of the columns that are read."""
        named = (self.external_id, self.alias_name, self.device_id, self.identified)
        return list(dict.fromkeys(column for column in named if column))


@dataclass(frozen=True)
class MatchResult:
    """What became of a segment's members.

    :param uri: folder of the result's files.
    :param fingerprint: the same for the same identifiers and counts.
    :param counts: ``members``, ``matched``, one per kind, ``duplicates`` and ``unmatched`` by reason.
    """

    uri: str
    fingerprint: str
    counts: dict[str, Any]


def match(members: Members, mapping: IdentityMapping, access: Access, ledger: Path) -> MatchResult:
    """Match every member, and write down the result.

    The folder ``matches/<fingerprint>`` of the ledger holds ``identifiers.parquet`` (kind, value, label),
    each once; ``others.parquet``, the identifiers that the same people have beside the chosen one;
    ``unmatched.parquet`` (row, reason and the values as they came), which is the only place with identifiers
    of failures; and ``match.json`` with the counts.

    :param ledger: folder of all ledgers.
    :raises ConfigurationError: the mapping or the source cannot be used as it is.
    """
    mapping.check()
    with workspace() as space:
        space.sql("CREATE TABLE found (kind VARCHAR, value VARCHAR, label VARCHAR)")
        space.sql("CREATE TABLE others (kind VARCHAR, value VARCHAR, label VARCHAR)")
        space.sql(
            "CREATE TABLE unmatched "
            '("row" BIGINT, reason VARCHAR, external_id VARCHAR, alias_name VARCHAR, device_id VARCHAR)'
        )
        total = 0
        for part in members.parts(space, access, mapping.columns):
            match_part = partial(_match_part, space, part.view, mapping, first_row=total + 1)
            total += reading(part.source, match_part)
        space.sql("CREATE TABLE identifiers AS SELECT DISTINCT kind, value, label FROM found")
        counts = _counts(space, total)
        return _write(space, ledger, counts)


def read_match(folder: Path) -> MatchResult:
    """Read a result that :func:`match` wrote.

    :raises LedgerDamagedError: it is not there, or cannot be read.
    """
    try:
        record = json.loads((folder / "match.json").read_bytes())
        if record["format"] == FORMAT:
            return MatchResult(storage.uri(folder), record["fingerprint"], record["counts"])
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        pass  # said below; a storage that cannot be reached is another error, and passes
    raise LedgerDamagedError(
        f"The match {folder.name} is not in the ledger, or damaged. Nothing was sent. Clear the match task "
        "to make it again."
    )


def _match_part(space: Workspace, part: str, mapping: IdentityMapping, first_row: int) -> int:
    """Match the rows of one part; return how many there were."""
    types = {name.lower(): kind for name, kind, *_ in space.ask(f"DESCRIBE {part}")}

    def cell(column: str | None) -> tuple[str, str]:
        return text_and_problem(column, types[column.lower()] if column else "")

    (external, external_problem), (alias, alias_problem), (device, device_problem) = (
        cell(column) for column in (mapping.external_id, mapping.alias_name, mapping.device_id)
    )
    if mapping.identified:
        told = identified_expression(mapping.identified, types[mapping.identified.lower()])
        identified = "told_identified"
    else:
        told = "NULL"
        named_by = "external_problem" if mapping.external_id else "alias_problem"
        identified = f"{named_by} NOT IN ('blank', 'not_finite')"
    space.sql(
        f"""
        CREATE OR REPLACE TEMP TABLE cells AS
        WITH cleaned AS (
            SELECT {external} AS external, {external_problem} AS external_problem, {alias} AS alias,
                {alias_problem} AS alias_problem, {device} AS device, {device_problem} AS device_problem,
                {told} AS told_identified
            FROM {part}
        ), known AS (SELECT *, {identified} AS is_identified FROM cleaned)
        SELECT external, external_problem, alias, alias_problem, device, device_problem,
            CASE
                WHEN external_problem = '' THEN 'external_id'
                WHEN is_identified AND alias_problem = '' THEN 'alias'
                WHEN NOT is_identified AND device_problem = '' THEN 'device_id'
                WHEN NOT is_identified AND alias_problem = '' THEN 'alias'
            END AS kind,
            coalesce(
                nullif(external_problem, 'blank'),
                CASE WHEN NOT is_identified THEN nullif(device_problem, 'blank') END,
                nullif(alias_problem, 'blank'),
                CASE WHEN is_identified THEN 'identified_without_id' ELSE 'blank' END
            ) AS reason,
            row_number() OVER () + {first_row - 1} AS "row"
        FROM known
        """
    )
    label = (mapping.alias_label or "").replace("'", "''")
    space.sql(
        "INSERT INTO found SELECT kind, "
        "CASE kind WHEN 'external_id' THEN external WHEN 'alias' THEN alias ELSE device END, "
        f"CASE kind WHEN 'alias' THEN '{label}' ELSE '' END FROM cells WHERE kind IS NOT NULL"
    )
    space.sql(
        f"INSERT INTO others SELECT 'alias', alias, '{label}' FROM cells "
        "WHERE kind <> 'alias' AND alias_problem = '' "
        "UNION ALL SELECT 'device_id', device, '' FROM cells "
        "WHERE kind <> 'device_id' AND device_problem = ''"
    )
    space.sql(
        'INSERT INTO unmatched SELECT "row", reason, external, alias, device FROM cells WHERE kind IS NULL'
    )
    return space.count("cells")


def _counts(space: Workspace, members: int) -> dict[str, Any]:
    kinds = dict(space.ask("SELECT kind, count(*) FROM identifiers GROUP BY kind"))
    reasons = space.ask("SELECT reason, count(*) FROM unmatched GROUP BY reason ORDER BY reason")
    matched = space.count("identifiers")
    counts = {
        "members": members,
        "matched": matched,
        **{kind: kinds.get(kind, 0) for kind in KINDS},
        "duplicates": space.count("found") - matched,
        "unmatched": dict(reasons),
    }
    if members != matched + counts["duplicates"] + sum(counts["unmatched"].values()):
        raise UnbalancedError(
            f"The match does not add up: {counts}. Nothing was sent. This is a fault of this package: please "
            "report it with these numbers."
        )
    return counts


def _fingerprint(space: Workspace, counts: dict[str, Any]) -> str:
    """Tell results apart by their content, whatever the order of their rows."""
    sums = [
        space.ask(
            "SELECT sum(md5_number_lower(text)), sum(md5_number_upper(text)) FROM "
            f"(SELECT concat_ws(chr(0), {columns}) AS text FROM {table})"
        )
        for table, columns in (
            ("identifiers", "kind, value, label"),
            ("others", "kind, value, label"),
            ("unmatched", "reason, external_id, alias_name, device_id"),
        )
    ]
    return hashlib.sha256(json.dumps([str(sums), counts], sort_keys=True).encode()).hexdigest()[:32]


def _write(space: Workspace, ledger: Path, counts: dict[str, Any]) -> MatchResult:
    fingerprint = _fingerprint(space, counts)
    folder = ledger / "matches" / fingerprint
    result = MatchResult(storage.uri(folder), fingerprint, counts)
    if (folder / "match.json").exists():
        return result  # the same members were matched before
    for table in ("identifiers", "others", "unmatched"):
        local = space.folder / f"{table}.parquet"
        space.write(f"SELECT * FROM {table}", local)
        storage.write_whole(folder / f"{table}.parquet", local)
    record = {"format": FORMAT, "fingerprint": fingerprint, "counts": counts}
    storage.write_new(folder / "match.json", json.dumps(record, indent=1).encode())
    return result
