"""The users in an export's files: JSON objects, one a line, in many archives, brought to DuckDB in steps."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import ExportGoneError
from airflow_provider_heapbraze.membership.members import Part, reading
from airflow_provider_heapbraze.membership.tables import literal
from airflow_provider_heapbraze.segments.archives import json_lines
from airflow_provider_heapbraze.segments.arrival import bucket_files
from airflow_provider_heapbraze.segments.exports import ExportLateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from airflow_provider_heapbraze.clients.braze_reads import BrazeReads
    from airflow_provider_heapbraze.membership.members import Access
    from airflow_provider_heapbraze.membership.tables import Workspace
    from airflow_provider_heapbraze.segments.exports import Export

    # Given a folder, every archive of an export in turn, on the local disk until the next is asked for, with
    # what messages call it.
    Archives = Callable[[Path], Iterator[tuple[Path, str]]]

SOURCE = "The segment's export"
# What an export is asked for, by the column that it becomes.
EXPORT_FIELDS = {"external_id": "external_id", "alias": "user_aliases"}
COLUMNS = {
    "braze_id": "JSON",
    "external_id": "JSON",
    "user_aliases": "STRUCT(alias_name JSON, alias_label JSON)[]",
}
# As much of an export as is unpacked at a time.
STEP_BYTES = 128 << 20
# Packed; 20 million users with their identifiers are some 2 GB.
LARGEST_ARCHIVE = 32 << 30


@dataclass
class ExportedMembers:
    """Members of a Braze segment, out of an export; the columns are ``external_id`` and ``alias``.

    :param archives: of the export.
    :param alias_label: whose name ``alias`` is.
    """

    template_fields: ClassVar[Sequence[str]] = ()

    archives: Archives = field(repr=False)
    alias_label: str | None = None

    def parts(self, space: Workspace, access: Access, columns: Sequence[str]) -> Iterator[Part]:  # noqa: ARG002 - the archives are found already
        """Give one part per step; see :class:`.members.Members`."""
        label = literal(self.alias_label or "")
        cells = {
            "external_id": "external_id",
            "alias": f"[a.alias_name FOR a IN user_aliases IF a.alias_label = {label}][1]",
        }
        wanted = ", ".join(f"{cells[column]} AS c{place}" for place, column in enumerate(columns))
        read_at = datetime.now(UTC)
        for users in steps(self.archives, space.folder):
            yield Part(SOURCE, f"SELECT {wanted} FROM {users}", read_at)


def load_exported(space: Workspace, archives: Archives) -> int:
    """Make the table ``exported``: person, kind, value and label of every identifier; return the persons.

    A person without an external id and without an alias has Braze's own id.
    """
    space.sql("CREATE TABLE exported (person BIGINT, kind VARCHAR, value VARCHAR, label VARCHAR)")
    persons = 0
    for users in steps(archives, space.folder):
        persons += reading(SOURCE, partial(_load_step, space, users, persons))
    return persons


def export_archives(export: Export, reads: BrazeReads, bucket: Path | None) -> Archives:
    """Return what gives an export's archives, from its URL or from the bucket.

    :raises ExportGoneError: (when asked) the URL has expired, or the bucket has none of the files.
    :raises HeapBrazeError: (when asked) as :meth:`BrazeReads.download`.
    """

    def archives(folder: Path) -> Iterator[tuple[Path, str]]:
        if export.url is not None:
            file = folder / "export.archive"
            reads.download(export.url, file, most_bytes=LARGEST_ARCHIVE)
            yield file, "The export's archive"
            return
        files = bucket_files(export, bucket)
        if not files:
            # They were there. No file does not mean a segment without anybody.
            raise ExportGoneError(
                f"The files of export {export.object_prefix} are not in the bucket any more. Nothing was "
                "sent. Clear the task to make a new export."
            )
        for number, (path, _) in enumerate(files, 1):
            with _on_disk(path, folder) as file:
                # Whose file it is that does not belong there is not known, nor what its name says.
                yield file, f"File {number} of {len(files)} of export {export.object_prefix}"
        if bucket_files(export, bucket) != files:
            raise ExportLateError(
                f"Braze was still writing files of export {export.object_prefix} while they were read. "
                "Nothing was sent. The next try reads all of them."
            )

    return archives


@contextmanager
def _on_disk(path: Path, folder: Path) -> Iterator[Path]:
    file = storage.fetched(path, folder)
    try:
        yield file
    finally:
        if file.is_relative_to(folder):
            file.unlink(missing_ok=True)  # where reading fails, the folder may be gone first


def steps(archives: Archives, folder: Path) -> Iterator[str]:
    """Unpack the archives in steps; give SQL that reads the users of one, until the next is asked for.

    There is one step at least: a segment may have nobody in it.

    :raises UnusableExportError: a file is none of Braze's.
    """
    file = folder / "exported.ndjson"
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in COLUMNS.items())
    users = (
        f"(SELECT {_text('braze_id')} AS braze_id, {_text('external_id')} AS external_id, "
        f"[{{alias_name: {_text('a.alias_name')}, alias_label: {_text('a.alias_label')}}} "
        "FOR a IN user_aliases IF a.alias_name IS NOT NULL AND a.alias_label IS NOT NULL] AS user_aliases "
        f"FROM read_json({literal(file)}, format = 'newline_delimited', hive_partitioning = false, "
        f"columns = {{{columns}}}))"
    )
    blocks = (block for archive, name in archives(folder) for block in json_lines(archive, name))
    more = True
    while more:
        more = _fill(file, blocks)
        yield users
    file.unlink()


def _text(cell: str) -> str:
    """Return SQL for the text in a cell; what is nested, a fraction or a truth is nobody's identifier."""
    return (
        f"CASE WHEN {cell} IS NULL THEN NULL "
        f"WHEN json_type({cell}) IN ('VARCHAR', 'UBIGINT', 'BIGINT') THEN {cell} ->> '$' "
        "ELSE error('an identifier is no text') END"
    )


def _fill(file: Path, blocks: Iterator[bytes]) -> bool:
    """Write one step; tell whether there may be more."""
    size = 0
    with file.open("wb") as step:
        for block in blocks:
            size += step.write(block)
            if size >= STEP_BYTES:
                return True
    return False


def _load_step(space: Workspace, users: str, persons: int) -> int:
    space.sql(f"CREATE TEMP TABLE step AS SELECT row_number() OVER () + {persons} AS person, * FROM {users}")
    space.sql(
        "INSERT INTO exported SELECT person, 'external_id', external_id, '' FROM step "
        "WHERE external_id IS NOT NULL "
        "UNION ALL SELECT person, 'alias', a.alias_name, a.alias_label "
        "FROM (SELECT person, unnest(user_aliases) AS a FROM step) "
        "UNION ALL SELECT person, 'braze_id', coalesce(braze_id, ''), '' FROM step "
        "WHERE external_id IS NULL AND coalesce(len(user_aliases), 0) = 0"
    )
    count = space.count("step")
    space.sql("DROP TABLE step")
    return count
