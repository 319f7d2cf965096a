"""One identifier per member, or the reason why there is none."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, UnbalancedError
from airflow_provider_heapbraze.membership.members import reading
from airflow_provider_heapbraze.membership.tables import digest, literal, workspace
from airflow_provider_heapbraze.membership.values import MACROS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from _typeshed import DataclassInstance

    from airflow_provider_heapbraze.membership.identity import Matcher
    from airflow_provider_heapbraze.membership.members import Access, Members, Part
    from airflow_provider_heapbraze.membership.tables import Workspace

FORMAT = 2
RECORD = "match.json"
BEFORE_ANY = datetime.min.replace(tzinfo=UTC)
IDENTIFIERS, OTHERS, UNMATCHED = TABLES = ("identifiers.parquet", "others.parquet", "unmatched.parquet")


@dataclass(frozen=True)
class MatchResult:
    """What became of a segment's members.

    :param uri: folder of the result's files.
    :param fingerprint: the same for the same identifiers and counts, in whatever order they came.
    :param counts: ``members``, ``matched``, one per kind, ``duplicates`` and ``unmatched`` by reason.
    :param taken_at: when they were the segment's members, UTC: the newest time that the source tells.
    :param digests: of the result's files, by their names.
    """

    uri: str
    fingerprint: str
    counts: dict[str, Any]
    # The same people at another time are the same match, and so are the same rows in another order.
    taken_at: datetime = field(compare=False)
    digests: dict[str, str] = field(compare=False)


def match(members: Members, matcher: Matcher, access: Access, ledger: Path) -> MatchResult:
    """Match every member, and write down the result.

    The folder ``matches/<fingerprint>`` of the ledger holds ``identifiers.parquet`` (kind, value, label; each
    once), ``others.parquet`` (the identifiers that the same people have beside the chosen one, which is named
    by ``of_kind``, ``of_value`` and ``of_label``),
    ``unmatched.parquet`` (row, reason, and the values as they came: the only place that has them) and
    ``match.json`` (the counts). The same result is not written twice.

    :param ledger: folder of all ledgers.
    :raises ConfigurationError: the mapping or the source cannot be used as it is.
    :raises UnbalancedError: rows are unaccounted for.
    """
    with workspace() as space:
        total, taken_at = _apply_rule(space, members, matcher, access)
        tables = _write_tables(space, matcher)
        counts = _counts(space, total, matcher.kinds)
        folder = match_folder(ledger, _fingerprint(space, tables, counts))
        result = MatchResult(storage.uri(folder), folder.name, counts, taken_at, _digests(tables))
        return _keep(folder, result, asdict(cast("DataclassInstance", matcher)), tables)


def keep_identifiers(space: Workspace, identifiers: str, others: str, ledger: Path) -> MatchResult:
    """Write down people who are matched already, as :func:`match` does.

    :param identifiers: query for kind, value and label, each once.
    :param others: query for other identifiers of the same people, each with its ``of_kind``, ``of_value`` and
        ``of_label``.
    :param ledger: folder of all ledgers.
    """
    nobody = "SELECT 0 AS row, '' AS reason WHERE false"
    tables = [space.folder / name for name in TABLES]
    for query, table in zip((identifiers, others, nobody), tables, strict=True):
        space.write(query, table)
    found = space.ask(f"SELECT kind, count(*) FROM ({identifiers}) GROUP BY kind ORDER BY kind")
    total = sum(count for _, count in found)
    counts = {"members": total, "matched": total, **dict(found), "duplicates": 0, "unmatched": {}}
    folder = match_folder(ledger, _fingerprint(space, tables, counts))
    result = MatchResult(storage.uri(folder), folder.name, counts, datetime.now(UTC), _digests(tables))
    return _keep(folder, result, {}, tables)


def match_folder(ledger: Path, fingerprint: str) -> Path:
    """Return where a match is kept in the folder of all ledgers."""
    return ledger / "matches" / fingerprint


def read_match(folder: Path) -> MatchResult:
    """Read a result that :func:`match` wrote; where several did, the time is that of the first.

    :raises LedgerDamagedError: it is not there, or cannot be read.
    """
    # A storage that cannot be reached is another error, and passes.
    with suppress(FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        record = json.loads((folder / RECORD).read_bytes())
        if record["format"] == FORMAT:
            taken_at = datetime.fromisoformat(record["taken_at"])
            return MatchResult(
                storage.uri(folder), record["fingerprint"], record["counts"], taken_at, record["digests"]
            )
    raise LedgerDamagedError(
        f"The match {folder.name} is not in the ledger, is damaged, or was written by another version. "
        "Nothing was sent. Clear the match task to make it again."
    )


def balanced(counts: dict[str, Any], kinds: Sequence[str]) -> dict[str, Any]:
    """Return the counts, once they account for every row.

    :raises UnbalancedError: they do not.
    """
    accounted = counts["matched"] + counts["duplicates"] + sum(counts["unmatched"].values())
    if counts["members"] != accounted or counts["matched"] != sum(counts[kind] for kind in kinds):
        raise UnbalancedError(
            f"The match does not add up: {counts}. Nothing was sent. This is a fault of this package: report "
            "it with these numbers."
        )
    return counts


def _apply_rule(space: Workspace, members: Members, matcher: Matcher, access: Access) -> tuple[int, datetime]:
    """Make the view ``ruled``: every member with its identifier or its reason; return how many, and of when.

    It is set down on disk, part by part: memory holds one part, however many there are.
    """
    columns = matcher.columns()
    space.sql(MACROS)
    names = list(dict.fromkeys(columns.values()))
    cells = {role: f"c{names.index(name)}" for role, name in columns.items()}
    total = 0
    taken_at = BEFORE_ANY

    def set_down(part: Part, file: Path) -> int:
        types = {row[0]: row[1] for row in space.ask(f"DESCRIBE {part.query}")}
        return space.write(matcher.rule(part.query, cells, types, total), file)

    for number, part in enumerate(members.parts(space, access, names)):
        file = space.folder / f"ruled-{number:06d}.parquet"
        total += reading(part.name, partial(set_down, part, file))
        taken_at = max(taken_at, part.taken_at)
    ruled = literal(space.folder / "ruled-*.parquet")
    space.sql(f"CREATE VIEW ruled AS SELECT * FROM read_parquet({ruled})")
    return total, taken_at


def _write_tables(space: Workspace, matcher: Matcher) -> list[Path]:
    """Write the identifiers, the others and the unmatched on the local disk."""
    label = literal(matcher.label)
    own_label = f"CASE kind WHEN 'alias' THEN {label} ELSE '' END"
    owner = f"kind AS of_kind, value AS of_value, {own_label} AS of_label FROM ruled WHERE kind IS NOT NULL"
    alias = f"SELECT 'alias' AS kind, other_alias AS value, {label} AS label, {owner}"
    device = f"SELECT 'device_id', other_device_id, '', {owner}"
    queries = {
        IDENTIFIERS: f"SELECT DISTINCT kind, value, {own_label} AS label FROM ruled WHERE kind IS NOT NULL",
        OTHERS: f"{alias} AND other_alias IS NOT NULL UNION ALL {device} AND other_device_id IS NOT NULL",
        UNMATCHED: f'SELECT "row", reason, {", ".join(matcher.roles)} FROM ruled WHERE kind IS NULL',
    }
    for name, query in queries.items():
        space.write(query, space.folder / name)
    return [space.folder / name for name in queries]


def _counts(space: Workspace, total: int, kinds: Sequence[str]) -> dict[str, Any]:
    source = f"read_parquet({literal(space.folder / IDENTIFIERS)})"
    found = dict(space.ask(f"SELECT kind, count(*) FROM {source} GROUP BY kind"))
    reasons = space.ask(
        "SELECT reason, count(*) FROM ruled WHERE reason IS NOT NULL GROUP BY reason ORDER BY reason"
    )
    matched = sum(found.values())
    return balanced(
        {
            "members": total,
            "matched": matched,
            **{kind: found.get(kind, 0) for kind in kinds},
            "duplicates": space.count("ruled WHERE kind IS NOT NULL") - matched,
            "unmatched": dict(reasons),
        },
        kinds,
    )


def _fingerprint(space: Workspace, tables: Sequence[Path], counts: Mapping[str, Any]) -> str:
    """Digest the tables, in a way that the order of their rows does not change, and the counts."""
    sums = []
    for table in tables:
        source = f"read_parquet({literal(table)})"
        names = [name for name, *_ in space.ask(f"DESCRIBE SELECT * FROM {source}") if name != "row"]
        # No two rows give the same text, whatever is in them.
        text = " || ".join(f"coalesce(concat(strlen({name}), ':', {name}), '-')" for name in names)
        digests = f"SELECT md5_number({text})::UHUGEINT AS digest FROM {source}"
        halves = "sum((digest >> 64)::UBIGINT), sum((digest & 18446744073709551615)::UBIGINT)"
        sums.append(str(space.ask(f"SELECT {halves} FROM ({digests})")[0]))
    return hashlib.sha256(json.dumps([sums, counts], sort_keys=True).encode()).hexdigest()[:32]


def _digests(tables: Sequence[Path]) -> dict[str, str]:
    return {table.name: digest(table) for table in tables}


def _keep(
    folder: Path, result: MatchResult, mapping: Mapping[str, Any], tables: Sequence[Path]
) -> MatchResult:
    """Put the result in its place, unless it is there; the record last: whoever reads it finds the rest.

    :returns: the result as it is there now.
    """
    if not _is_kept(folder):
        record = tables[0].with_name(RECORD)
        record.write_text(
            json.dumps(
                {
                    "format": FORMAT,
                    "fingerprint": result.fingerprint,
                    "counts": result.counts,
                    "taken_at": result.taken_at.isoformat(),
                    "mapping": mapping,
                    "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
                    "digests": result.digests,
                },
                indent=1,
            )
        )
        for file in (*tables, record):
            storage.write_whole(folder / file.name, file)
    return replace(read_match(folder), taken_at=result.taken_at)


def _is_kept(folder: Path) -> bool:
    """Tell whether a result is there and whole: a file that was damaged is made again."""
    with suppress(LedgerDamagedError, FileNotFoundError):
        written = read_match(folder).digests
        return all(_digest_there(folder / name) == written.get(name) for name in TABLES)
    return False


def _digest_there(file: Path) -> str:
    with storage.local_copy(file) as copy:
        return digest(copy)
