"""Where what is sent is counted, as Airflow's configuration says it."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, conf
from airflow.sdk import BaseHook

from airflow_provider_heapbraze.clients.budget_stores import FileStore, PostgresStore, RedisStore
from airflow_provider_heapbraze.clients.clock import SYSTEM_CLOCK
from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.clients.shared_file import shared_folder

if TYPE_CHECKING:
    from airflow.sdk.definitions.connection import Connection

    from airflow_provider_heapbraze.clients.budget_stores import BudgetStore

# A store that says nothing for so many seconds is away.
SILENCE = 5
POSTGRES_SILENCE = {
    "connect_timeout": SILENCE,
    "tcp_user_timeout": SILENCE * 1000,
    "keepalives_idle": SILENCE,
    "keepalives_interval": 1,
    "keepalives_count": 3,
}


def budget_store() -> BudgetStore:
    """Return the store of the shared budgets; it is reached for when something is sent.

    :raises ConfigurationError: ``[heapbraze] budget`` names no connection that will do.
    """
    conn_id = conf.get("heapbraze", "budget", fallback="").strip()
    if not conn_id:
        return FileStore(shared_folder, SYSTEM_CLOCK)
    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise ConfigurationError(
            f"There is no Airflow connection {conn_id!r}, which [heapbraze] budget names. Nothing was sent."
        ) from None
    if connection.conn_type == "redis":
        return RedisStore(lambda: _redis(conn_id))
    if connection.conn_type == "postgres":
        return PostgresStore(lambda: _postgres(connection))
    raise ConfigurationError(
        f"The connection {conn_id!r}, which [heapbraze] budget names, is of type {connection.conn_type!r}: a "
        "shared budget needs redis or postgres. Nothing was sent."
    )


def _redis(conn_id: str) -> Any:
    try:
        from airflow.providers.redis.hooks.redis import RedisHook
    except ImportError:
        raise _not_installed("redis") from None
    hook: Any = RedisHook(conn_id)
    client = hook.get_conn()
    pool = getattr(client, "connection_pool", None)  # a cluster has none, and is not silent for ever
    if pool is not None:
        for name in ("socket_timeout", "socket_connect_timeout"):
            pool.connection_kwargs[name] = pool.connection_kwargs.get(name) or SILENCE
    return client


def _postgres(connection: Connection) -> Any:
    try:
        from airflow.providers.postgres.hooks.postgres import PostgresHook
    except ImportError:
        raise _not_installed("postgres") from None
    patient = deepcopy(connection)
    patient.extra = json.dumps({**POSTGRES_SILENCE, **connection.extra_dejson})
    opened = PostgresHook(connection=patient).get_conn()
    if hasattr(opened, "prepare_threshold"):
        opened.prepare_threshold = None  # poolers do not know what another connection has prepared
    return opened


def _not_installed(kind: str) -> ConfigurationError:
    return ConfigurationError(
        f"The shared budget is in {kind}, and its provider is not installed here: "
        f"pip install airflow-provider-heapbraze[{kind}]. Nothing was sent."
    )
