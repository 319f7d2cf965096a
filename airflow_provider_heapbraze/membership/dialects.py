"""How every warehouse says what our queries say; sqlglot knows the most of it.

Queries are written in DuckDB's SQL. A few functions of ours have no common form: their templates are below,
each in the warehouse's own SQL, with ``v`` for the argument.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.membership.values import SAYS_YES, WHITE_SPACE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlglot import exp

    from airflow_provider_heapbraze.membership.table_records import TableRecord

# A schema of ours, and never Heap's.
SCHEMA = "heapbraze"

# Columns that change sets are ordered by.
_TEXTS = {"kind", "value", "label"}
_IN_SCHEMA = "FROM information_schema.{0} WHERE table_schema = '" + SCHEMA + "'"
# ISO's information schema, as Postgres, Redshift, Snowflake and Trino have it.
_TABLES = f"SELECT table_name {_IN_SCHEMA.format('tables')}"
_COLUMNS = (
    f"SELECT column_name, data_type, numeric_scale {_IN_SCHEMA.format('columns')} AND table_name = '{{0}}'"
)
_SCHEMA_THERE = f"SELECT 1 FROM information_schema.schemata WHERE schema_name = '{SCHEMA}'"


def _filled(template: exp.Expr, argument: exp.Expr) -> exp.Expr:
    """Put an argument in the place of ``v``."""
    from sqlglot import exp

    def meant(part: exp.Expr) -> exp.Expr:
        return argument.copy() if isinstance(part, exp.Column) and part.name == "v" else part

    return template.transform(meant)


@dataclass(frozen=True)
class Dialect:
    """What is particular about a warehouse.

    :param name: what sqlglot calls it.
    :param digest: 15 hexadecimal digits, from the one called ``FIRST``, of the MD5 of a text in UTF-8, as a
        number whose sum over all people does not overflow.
    :param byte_length: the length of a text in UTF-8, in bytes.
    :param by_bytes: a text that is compared byte by byte, whatever its column says.
    :param session: what is said first.
    :param schema_there: gives a row where the schema is there, or fails where it is not.
    :param tables: gives the names of the tables in the schema.
    :param columns: gives names, types and, where the type does not say it, scales of a table's columns.
    :param examine: what makes a table's size known to the planner, where that does not happen by itself.
    :param rows_per_statement: how many rows one statement brings.
    """

    name: str
    digest: str
    byte_length: str = "octet_length(v)"
    by_bytes: str = "v"
    session: tuple[str, ...] = ()
    schema_there: str = _SCHEMA_THERE
    tables: str = _TABLES
    columns: str = _COLUMNS
    examine: str = ""
    rows_per_statement: int = 1000
    _parsed: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def schema(self) -> str:
        """Return the name of our schema as it is written."""
        from sqlglot import exp

        return exp.to_identifier(SCHEMA, quoted=True).sql(dialect=self.name)

    def rows_of(self, record: TableRecord) -> str:
        """Return the query for a table's rows."""
        return self.sql(selected(record.table, record.columns))

    def sql(self, query: exp.Expr) -> str:
        """Write a query, of which every name is quoted: cases differ between warehouses. It is used up."""
        from sqlglot import ErrorLevel

        written = query.transform(self._ours, copy=False)
        return str(
            written.sql(dialect=self.name, identify=True, unsupported_level=ErrorLevel.RAISE, copy=False)
        )

    def _ours(self, node: exp.Expr) -> exp.Expr:
        """Say in this dialect what sqlglot does not know."""
        from sqlglot import exp

        if isinstance(node, exp.Anonymous) and (template := self._templates.get(node.name.lower())):
            return _filled(template, node.expressions[0].transform(self._ours))
        if self.name == "postgres" and isinstance(node, exp.Ordered) and node.this.name in _TEXTS:
            # By bytes, whatever the database's own order is: a change set is the same from everywhere.
            collated = exp.Collate(this=node.this, expression=exp.to_identifier("C", quoted=True))
            node.set("this", collated)
        return node

    @property
    def _templates(self) -> Mapping[str, exp.Expr]:
        from sqlglot import parse_one

        if not self._parsed:
            spaces = WHITE_SPACE.replace("'", "''")
            for name, text, dialect in (
                ("first_digest", self.digest.replace("FIRST", "1"), self.name),
                ("second_digest", self.digest.replace("FIRST", "16"), self.name),
                ("size_in_bytes", self.byte_length, self.name),
                ("by_bytes", self.by_bytes, self.name),
                ("trimmed", f"trim(v, '{spaces}')", "duckdb"),
                ("says_yes", SAYS_YES.format("v"), "duckdb"),
            ):
                self._parsed[name] = parse_one(text, read=dialect)
        return self._parsed


def selected(table: str, columns: Sequence[str]) -> exp.Select:
    """Return the query for columns of a table of ours."""
    from sqlglot import exp

    names = [exp.column(column, quoted=True) for column in columns]
    return exp.select(*names).from_(exp.table_(table, db=SCHEMA, quoted=True))


_SPARK = Dialect(
    "spark",
    digest="CAST(conv(substr(md5(v), FIRST, 15), 16, 10) AS DECIMAL(20, 0))",
    # A ${name} within a text would be replaced.
    session=("SET spark.sql.variable.substitute=false",),
    schema_there=f"DESCRIBE SCHEMA {SCHEMA}",
    tables=f"SHOW TABLES IN {SCHEMA}",
    columns=f"DESCRIBE TABLE {SCHEMA}.{{0}}",
)

# By the types of Airflow's connections.
DIALECTS = {
    # https://www.postgresql.org/docs/current/functions-string.html, functions-bitstring.html
    "postgres": Dialect(
        "postgres",
        digest="CAST(CAST(('x' || substr(md5(v), FIRST, 15)) AS bit(60)) AS bigint)",
        by_bytes='v COLLATE "C"',
        session=("SET standard_conforming_strings = on",),
        examine="ANALYZE {0}",  # autovacuum may come too late, and the planner takes a new table for small
    ),
    # https://docs.aws.amazon.com/redshift/latest/dg/r_STRTOL.html, r_MD5.html, r_OCTET_LENGTH.html
    "redshift": Dialect(
        "redshift",
        digest="strtol(substring(md5(v), FIRST, 15), 16)",
        by_bytes="collate(v, 'case_sensitive')",
        rows_per_statement=200,
    ),
    # https://docs.snowflake.com/en/sql-reference/functions/to_decimal, md5, octet_length
    "snowflake": Dialect(
        "snowflake",
        digest="to_number(substr(md5(v), FIRST, 15), 'XXXXXXXXXXXXXXX')",
        by_bytes="collate(v, '')",
    ),
    # https://cloud.google.com/bigquery/docs/reference/standard-sql/hash_functions, string_functions
    "gcpbigquery": Dialect(
        "bigquery",
        digest="CAST(CAST(CONCAT('0x', SUBSTR(TO_HEX(MD5(v)), FIRST, 15)) AS INT64) AS NUMERIC)",
        byte_length="BYTE_LENGTH(v)",
        by_bytes="COLLATE(v, '')",
        schema_there=f"SELECT count(*) FROM {SCHEMA}.INFORMATION_SCHEMA.TABLES",
        tables=f"SELECT table_name FROM {SCHEMA}.INFORMATION_SCHEMA.TABLES",
        columns=f"SELECT column_name, data_type FROM {SCHEMA}.INFORMATION_SCHEMA.COLUMNS "
        "WHERE table_name = '{0}'",
    ),
    # https://docs.databricks.com/en/sql/language-manual/functions/conv.html
    "databricks": replace(_SPARK, name="databricks", session=()),
    # https://spark.apache.org/docs/latest/api/sql/#conv
    "hiveserver2": _SPARK,
    # https://trino.io/docs/current/functions/conversion.html, binary.html
    "trino": Dialect(
        "trino",
        digest="CAST(from_base(substr(to_hex(md5(to_utf8(v))), FIRST, 15), 16) AS DECIMAL(38, 0))",
        byte_length="length(to_utf8(v))",
        columns=_COLUMNS.replace(", numeric_scale", ""),
    ),
}


def dialect_of(conn_type: str, conn_id: str) -> Dialect:
    """Return the dialect of a connection's type.

    :raises ConfigurationError: this package does not speak it, or sqlglot is not installed.
    """
    if conn_type not in DIALECTS:
        raise ConfigurationError(
            f"engine={conn_id!r} is a connection of type {conn_type!r}, in which nothing can be matched. "
            f"Nothing was sent. Give one of the types {', '.join(sorted(DIALECTS))}, or leave engine out: "
            "DuckDB matches what any database gives."
        )
    try:
        import sqlglot  # noqa: F401
    except ImportError:
        raise ConfigurationError(
            f"engine={conn_id!r} needs sqlglot where tasks run. Nothing was sent. Install "
            "airflow-provider-heapbraze[engine], then clear the task."
        ) from None
    return DIALECTS[conn_type]
