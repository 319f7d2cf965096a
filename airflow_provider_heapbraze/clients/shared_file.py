"""Small SQLite files that the processes of one machine share."""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from airflow_provider_heapbraze.clients.errors import BudgetAwayError, ConfigurationError, HeapBrazeError

LOCK_SECONDS = 30.0


def shared_folder() -> Path:
    """Return the folder of this machine's shared budgets, which nobody else can read.

    :raises ConfigurationError: somebody else made it, or it cannot be made.
    """
    folder = Path(tempfile.gettempdir()) / f"heapbraze-{os.getuid()}"
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        there = folder.lstat()
        if stat.S_ISDIR(there.st_mode) and there.st_uid == os.getuid():
            folder.chmod(0o700)
            return folder
    except OSError as error:
        raise ConfigurationError(
            f"{folder} cannot be made ({type(error).__name__}): what is sent from this machine is counted "
            "there. Nothing was sent. Give the task a TMPDIR that it can write to."
        ) from None
    raise ConfigurationError(
        f"{folder} belongs to somebody else, or is no folder: how much is sent could be changed there. "
        "Nothing was sent. Remove it, or give the task a TMPDIR of its own."
    )


def open_file(place: str, table: str) -> sqlite3.Connection:
    """Open a file, and make its table where there is none.

    :param place: its path, or ``:memory:``.
    :raises HeapBrazeError: as :func:`unusable`.
    """
    database = sqlite3.connect(place, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA synchronous = OFF")  # after a power cut nobody has sent anything for a while
        database.execute(table)
    except sqlite3.DatabaseError as error:
        database.close()
        raise unusable(place, error) from None
    return database


def unusable(place: str, error: sqlite3.Error) -> HeapBrazeError:
    """Return what to raise where a file cannot be used: one error for now, another for good."""
    kind = type(error).__name__
    if isinstance(error, sqlite3.OperationalError):
        return BudgetAwayError(
            f"The shared budget {place} cannot be used now ({kind}): it is locked, or its disk is full. What "
            "was accepted is recorded; a later try goes on."
        )
    return ConfigurationError(
        f"The shared budget {place} is damaged ({kind}). Remove it when nothing runs that uses it: it only "
        "holds how much was sent lately. What was accepted is recorded."
    )
