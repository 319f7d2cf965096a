"""The ``heapbraze`` command: ``heapbraze ledger check [<uri>]``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.ledger_check.check import as_record, as_text, check

if TYPE_CHECKING:
    from collections.abc import Sequence

HEALTHY, DAMAGED, USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line; return the exit code: 0 healthy, 1 damaged, 2 it could not be looked at."""
    given = _parser().parse_args(arguments)
    try:
        root = _root(given.uri or _configured_ledger() or given.refuse())
        accounts = check(root, deep=given.deep)
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return USAGE
    except OSError as error:
        sys.stderr.write(f"The ledger cannot be read ({type(error).__name__}: {error.strerror or error}).\n")
        return USAGE
    said = json.dumps(as_record(accounts), indent=1) if given.json else as_text(root, accounts)
    sys.stdout.write(f"{said}\n")
    return DAMAGED if any(account.findings for account in accounts) else HEALTHY


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="heapbraze", description="Heap and Braze from Apache Airflow.")
    groups = parser.add_subparsers(required=True, metavar="ledger")
    ledger = groups.add_parser("ledger", help="look at a ledger").add_subparsers(
        required=True, metavar="check"
    )
    look = ledger.add_parser(
        "check",
        help="list what is in a ledger, verify it, and say what to do",
        description="List what is in a ledger, verify it, and say what to do. Reads only, and shows no "
        "identifier. Exit code: 0 healthy, 1 damaged, 2 it could not be looked at.",
    )
    look.add_argument(
        "uri",
        nargs="?",
        help="where the ledger is: a folder, file://…, or s3://conn_id@bucket/prefix as Airflow has it; "
        "default: [heapbraze] ledger of Airflow's configuration",
    )
    look.add_argument(
        "--deep", action="store_true", help="look at every run and every row, not only at what is needed next"
    )
    look.add_argument("--json", action="store_true", help="the same for a program")
    look.set_defaults(
        refuse=lambda: look.error(
            "the following arguments are required: uri (Airflow's configuration has no [heapbraze] ledger)"
        )
    )
    return parser


def _configured_ledger() -> str:
    """Return the ledger of Airflow's configuration; where there is no Airflow, that of its environment."""
    try:
        from airflow_provider_heapbraze.locations import configured_ledger
    except ImportError:
        return os.environ.get("AIRFLOW__HEAPBRAZE__LEDGER", "")
    return configured_ledger()


def _root(uri: str) -> Path:
    """Return the ledger's folder; Airflow is asked only for what is not on the local disk.

    :raises ConfigurationError: Airflow, its connection or the storage's provider is missing.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return Path(uri).absolute()
    if scheme == "file":
        return Path(rest)
    try:
        from airflow.sdk.exceptions import AirflowException

        from airflow_provider_heapbraze.locations import path_of
    except ImportError:
        raise ConfigurationError(
            f"{scheme}:// is read through Airflow's object storage, and Airflow cannot be imported here. Run "
            "this where Airflow is installed, with the storage's provider and its connection; or copy the "
            "ledger to a folder and give that."
        ) from None
    try:
        return path_of(uri)
    except AirflowException as error:
        raise ConfigurationError(f"Airflow cannot open {scheme}://: {error}.") from None
