"""Where things are, as Airflow's object storage and configuration say it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from airflow.providers.common.compat.sdk import conf
from airflow.sdk import ObjectStoragePath

from airflow_provider_heapbraze.clients.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def configured_ledger() -> str:
    """Return ``[heapbraze] ledger`` of Airflow's configuration; empty where it is not set."""
    return str(conf.get("heapbraze", "ledger", fallback="") or "")


def ledger_uri(ledger: str | None) -> str:
    """Return the location of the folder of all ledgers.

    :param ledger: given, else ``[heapbraze] ledger`` of Airflow's configuration, else under its home.
    """
    from airflow.configuration import AIRFLOW_HOME

    return ledger or configured_ledger() or f"file://{AIRFLOW_HOME}/heapbraze-ledger"


def ledger_root(ledger: str | None) -> Path:
    """Return the folder of all ledgers; see :func:`ledger_uri`."""
    return path_of(ledger_uri(ledger))


def path_of(uri: str) -> Path:
    """Return the path of a location; ``s3://conn_id@bucket/key`` uses that connection.

    :raises ConfigurationError: there is no such storage, or no provider is installed for it.
    """
    from airflow_provider_heapbraze import storage

    try:
        path = ObjectStoragePath(uri)  # which knows the protocols of fsspec
        here = storage.local(path)
        if here is not None:
            return here
        path.fs  # noqa: B018 - it looks for the storage's provider
    except ValueError:
        protocol = uri.partition("://")[0]
        raise ConfigurationError(
            f"Airflow knows no storage for {protocol}://: look at how it is written, or install the provider "
            "that has it, for example apache-airflow-providers-amazon[s3fs] for s3. Nothing was sent."
        ) from None
    return cast("Path", path)
