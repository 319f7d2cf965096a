"""One identifier per member, or the reason why there is none."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, unquote

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, UnbalancedError
from airflow_provider_heapbraze.membership.members import reading
from airflow_provider_heapbraze.membership.space import keep
from airflow_provider_heapbraze.membership.spaces import Spaces
from airflow_provider_heapbraze.membership.tables import literal
from airflow_provider_heapbraze.membership.values import MACROS
from airflow_provider_heapbraze.membership.values import reading as value_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from _typeshed import DataclassInstance

    from airflow_provider_heapbraze.membership.identity import Matcher
    from airflow_provider_heapbraze.membership.members import Access, Members, Part
    from airflow_provider_heapbraze.membership.space import Space
    from airflow_provider_heapbraze.membership.tables import Workspace
    from airflow_provider_heapbraze.membership.warehouse import WarehouseSpace

FORMAT = 3
MATCHES = "matches"
USED = "used"
BEFORE_ANY = datetime.min.replace(tzinfo=UTC)
IDENTIFIERS, OTHERS, UNMATCHED = TABLES = ("identifiers", "others", "unmatched")


@dataclass(frozen=True)
class MatchResult:
    """What became of a segment's members.

    :param uri: folder of the result's files.
    :param fingerprint: the same for the same identifiers and counts, in whatever order they came.
    :param counts: ``members``, ``matched``, one per kind, ``duplicates`` and ``unmatched`` by reason.
    :param taken_at: when they were the segment's members, UTC: the newest time that the source tells.
    :param digests: of the result's files, by their names.
    :param engine: the Airflow connection of the warehouse that the tables are in; empty for DuckDB.
    """

    uri: str
    fingerprint: str
    counts: dict[str, Any]
    # The same people at another time are the same match, and so are the same rows in another order.
    taken_at: datetime = field(compare=False)
    digests: dict[str, str] = field(compare=False)
    engine: str = field(default="", compare=False)

    def file_of(self, table: str) -> str | None:
        """Return the name of a table's file."""
        return next((name for name in self.digests if name.startswith(f"{table}-")), None)


def match(members: Members, matcher: Matcher, access: Access, ledger: Path, engine: str = "") -> MatchResult:
    """Match every member, and write down the result.

    The folder ``matches/<fingerprint>`` of the ledger holds three tables, whose names end with their digests:
    ``identifiers`` (kind, value, label; each once), ``others`` (the identifiers that the same people have
    beside the chosen one, which is named by ``of_kind``, ``of_value`` and ``of_label``) and ``unmatched``
    (row, reason, and the values as they came: the only place that has them); ``match.json`` (the counts, and
    the tables' names); and ``used`` (when it was last asked for). The same result is not written twice. With
    an engine the tables stay in the warehouse, and a small file for each says where.

    :param ledger: folder of all ledgers.
    :param engine: the Airflow connection of the warehouse where the members are; empty matches with DuckDB.
    :raises ConfigurationError: the mapping or the source cannot be used as it is.
    :raises UnbalancedError: rows are unaccounted for.
    """
    with Spaces(access, engine).open() as space:
        if space.engine:
            from airflow_provider_heapbraze.membership.warehouse_match import rule_in_warehouse

            total, taken_at = rule_in_warehouse(cast("WarehouseSpace", space), members, matcher)
        else:
            total, taken_at = _apply_rule(cast("Workspace", space), members, matcher, access)
        _stage_tables(space, matcher)
        counts = _counts(space, total, matcher.kinds)
        return _keep(space, ledger, counts, taken_at, matcher)


def keep_identifiers(space: Space, identifiers: str, others: str, ledger: Path) -> MatchResult:
    """Write down people who are matched already, as :func:`match` does.

    :param identifiers: query for kind, value and label, each once.
    :param others: query for other identifiers of the same people, each with its ``of_kind``, ``of_value`` and
        ``of_label``.
    :param ledger: folder of all ledgers.
    """
    nobody = "SELECT CAST(NULL AS BIGINT) AS \"row\", '' AS reason FROM (SELECT 1 AS one) nothing WHERE false"
    for name, query in zip(TABLES, (identifiers, others, nobody), strict=True):
        space.stage(name, query)
    found = space.ask(f"SELECT kind, count(*) FROM {IDENTIFIERS} GROUP BY kind ORDER BY kind")
    total = sum(count for _, count in found)
    counts = {"members": total, "matched": total, **dict(found), "duplicates": 0, "unmatched": {}}
    return _keep(space, ledger, counts, datetime.now(UTC), None)


def match_folder(ledger: Path, fingerprint: str) -> Path:
    """Return where a match is kept in the folder of all ledgers."""
    return ledger / MATCHES / fingerprint


def read_match(folder: Path, engine: str = "") -> MatchResult:
    """Read a result that :func:`match` wrote; where several did, the time is that of the first.

    :param engine: which of them; the same people may have been matched in several places.
    :raises LedgerDamagedError: it is not there, or cannot be read.
    """
    # A storage that cannot be reached is another error, and passes.
    with suppress(FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        record = json.loads((folder / record_name(engine)).read_bytes())
        if record["format"] == FORMAT:
            taken_at = datetime.fromisoformat(record["taken_at"])
            return MatchResult(
                storage.uri(folder),
                record["fingerprint"],
                record["counts"],
                taken_at,
                record["digests"],
                record["engine"],
            )
    raise LedgerDamagedError(
        f"The match {folder.name} is not in the ledger, is damaged, or was written by another version. "
        "Nothing was sent. Clear the match task to make it again."
    )


def find_match(folder: Path, engine: str = "") -> MatchResult | None:
    """Read a result: this engine's, or else another one's; None where no one's can be read."""
    engines = [engine, *sorted(_engines_of(folder) - {engine})]
    for each in engines:
        with suppress(LedgerDamagedError):
            return read_match(folder, each)
    return None


def load_table(space: Space, view: str, folder: Path, match: MatchResult, table: str) -> bool:
    """Make a view of a table of a match; return whether it is there and whole."""
    rows = match.counts["matched"] if table == IDENTIFIERS else None
    name = match.file_of(table)
    return name is not None and space.load(view, folder / name, rows=rows, expected=match.digests[name])


def load_others(space: Space, view: str, folder: Path) -> bool:
    """Make a view of other identifiers of people who were matched before; return whether they are there."""
    found = find_match(folder, space.engine)
    return found is not None and load_table(space, view, folder, found, OTHERS)


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
        readings = {row[0]: value_of(row[1]) for row in space.ask(f"DESCRIBE {part.query}")}
        numbered = f'SELECT row_number() OVER () + {total} AS "row", * FROM ({part.query})'
        return space.write(matcher.rule(numbered, cells, readings), file)

    for number, part in enumerate(members.parts(space, access, names)):
        file = space.folder / f"ruled-{number:06d}.parquet"
        total += reading(part.name, partial(set_down, part, file))
        taken_at = max(taken_at, part.taken_at)
    ruled = literal(space.folder / "ruled-*.parquet")
    space.view("ruled", f"SELECT * FROM read_parquet({ruled})")
    return total, taken_at


def _stage_tables(space: Space, matcher: Matcher) -> None:
    """Make the identifiers, the others and the unmatched."""
    label = literal(matcher.label)
    own_label = f"CASE kind WHEN 'alias' THEN {label} ELSE '' END"
    owner = f"kind AS of_kind, value AS of_value, {own_label} AS of_label FROM ruled WHERE kind IS NOT NULL"
    alias = f"SELECT 'alias' AS kind, other_alias AS value, {label} AS label, {owner}"
    device = f"SELECT 'device_id' AS kind, other_device_id AS value, '' AS label, {owner}"
    queries = {
        IDENTIFIERS: f"SELECT DISTINCT kind, value, {own_label} AS label FROM ruled WHERE kind IS NOT NULL",
        OTHERS: f"{alias} AND other_alias IS NOT NULL UNION ALL {device} AND other_device_id IS NOT NULL",
        UNMATCHED: f'SELECT "row", reason, {", ".join(matcher.roles)} FROM ruled WHERE kind IS NULL',
    }
    for name, query in queries.items():
        space.stage(name, query)


def _counts(space: Space, total: int, kinds: Sequence[str]) -> dict[str, Any]:
    found = dict(space.ask(f"SELECT kind, count(*) FROM {IDENTIFIERS} GROUP BY kind"))
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


def _fingerprint(space: Space, roles: Sequence[str], counts: Mapping[str, Any]) -> str:
    """Digest the tables, in a way that the order of their rows does not change, and the counts."""
    key = ("kind", "value", "label")
    columns = {
        IDENTIFIERS: key,
        OTHERS: (*key, *(f"of_{name}" for name in key)),
        UNMATCHED: ("reason", *roles),
    }
    sums = []
    for table, names in columns.items():
        # No two rows give the same text, whatever is in them.
        text = " || ".join(
            f"coalesce(CAST(length({name}) AS VARCHAR) || ':' || {name}, '-')" for name in names
        )
        halves = "sum(first_digest(content)) AS first_sum, sum(second_digest(content)) AS second_sum"
        (found,) = space.ask(f"SELECT {halves} FROM (SELECT {text} AS content FROM {table}) a")
        sums.append([str(int(half or 0)) for half in found])
    return hashlib.sha256(json.dumps([sums, counts], sort_keys=True).encode()).hexdigest()[:32]


def _keep(
    space: Space, ledger: Path, counts: dict[str, Any], taken_at: datetime, matcher: Matcher | None
) -> MatchResult:
    """Put the result in its place, unless it is there; the record last: whoever reads it finds the rest.

    :param matcher: None for people who were matched already.
    :returns: the result as it is there now.
    """
    fingerprint = _fingerprint(space, matcher.roles if matcher else (), counts)
    folder = match_folder(ledger, fingerprint)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    # Before the look: pruning that begins after this leaves what is there.
    storage.write(folder / USED, now.encode())
    if not _is_kept(space, folder):
        digests = {}
        for table in TABLES:
            # Another task may write the same match now: each names its own tables.
            digests[keep(space, table, folder / table)] = space.digest_of(table)
        record = {
            "format": FORMAT,
            "fingerprint": fingerprint,
            "counts": counts,
            "taken_at": taken_at.isoformat(),
            "mapping": asdict(cast("DataclassInstance", matcher)) if matcher else {},
            "made_at": now,
            "digests": digests,
            "engine": space.engine,
        }
        storage.write(folder / record_name(space.engine), json.dumps(record, indent=1).encode())
    return replace(read_match(folder, space.engine), taken_at=taken_at)


def _is_kept(space: Space, folder: Path) -> bool:
    """Tell whether a result is there and whole: a file that was damaged is made again."""
    with suppress(LedgerDamagedError):
        there = read_match(folder, space.engine)
        return all(load_table(space, f"kept_{table}", folder, there, table) for table in TABLES)
    return False


def record_name(engine: str) -> str:
    """Return the name of the file that says what a match is."""
    return f"match.{quote(engine, safe='')}.json" if engine else "match.json"


def _engines_of(folder: Path) -> set[str]:
    names = [name for name in storage.names(folder) if name.startswith("match.") and name.endswith(".json")]
    return {unquote(name.removeprefix("match").removesuffix(".json").removeprefix(".")) for name in names}
