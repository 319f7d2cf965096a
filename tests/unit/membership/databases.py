"""Warehouses without Airflow: a real server, and its driver."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.membership.dialects import DIALECTS

SCHEMA = "heapbraze"


class PostgresDatabase:
    """An open connection to the tests' Postgres."""

    dialect = DIALECTS["postgres"]

    def __init__(self, conn_id, opened):
        self.conn_id = conn_id
        self.opened = opened

    def run(self, sql):
        import psycopg

        try:
            done = self.opened.execute(sql)
        except psycopg.Error as error:
            raise ConfigurationError(f"{error}\n{sql[:2000]}") from None
        return done.fetchall() if done.description else []

    @contextmanager
    def read(self, query):
        import psycopg

        try:
            done = self.opened.execute(query)
        except psycopg.Error as error:
            raise ConfigurationError(str(error)) from None
        yield [column.name for column in done.description], iter([done.fetchall()])


class PostgresAccess:
    """Local files, and one Postgres as every connection."""

    def __init__(self, server, user="heapbraze"):
        self.server = server
        self.user = user

    def path(self, uri):
        return Path(uri)

    def query(self, conn_id, sql):
        raise NotImplementedError

    @contextmanager
    def database(self, conn_id):
        import psycopg

        place = {"host": str(self.server.folder), "port": self.server.port, "user": self.user}
        with psycopg.connect(**place, dbname="postgres", autocommit=True) as opened:
            yield PostgresDatabase(conn_id, opened)


def tables_of(server):
    """Return the tables that are there, by what they hold."""
    rows = server.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = %s", SCHEMA)
    return sorted(name for (name,) in rows)
