"""A folder of the ledger: small JSON records, and a numbered log whose places are taken one by one.

Beside the layers, like :mod:`.storage`: both engines keep their record in such folders.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT = 1
NUMBERED = re.compile(r"^([0-9]+)\.json$", re.MULTILINE)


class PlaceLostError(PermanentError):
    """Another run took the place over; this one stops before its next batch."""


class LedgerDamagedError(PermanentError):
    """The ledger does not hold what its log says; nothing may be sent on its word.

    :param what: is damaged, for whoever only looks.
    """

    def __init__(self, message: str, *, what: str = "") -> None:
        super().__init__(message)
        self.what = what or message


class UnbalancedError(PermanentError):
    """The numbers of a report do not add up: rows are unaccounted for."""


class LedgerFolder:
    """Everything that is known of one target or source.

    Nothing is rewritten. A place in the log is taken by create-if-absent.

    :param path: a path with pathlib's interface.
    :param way_on: what to do where the ledger is damaged, as sentences.
    """

    def __init__(self, path: Path, way_on: str) -> None:
        self.folder = path
        self.way_on = f"Restore the file from a backup of the ledger; or {way_on}"
        self._without_backup = way_on

    def path(self, name: str) -> Path:
        """Return the path of a file that an entry names."""
        return self.folder / name

    def uri(self, name: str) -> str:
        """Return the location of a file, for people and for XCom."""
        return storage.uri(self.path(name))

    def log_numbers(self) -> list[int]:
        """Return the numbers of the entries of the log, rising."""
        return numbers(self.path("log"))

    def last_number(self) -> int:
        """Return the number of the newest entry of the log; 0 where there is none.

        :raises LedgerDamagedError: an entry is missing.
        """
        found = self.log_numbers()
        if not found:
            return 0
        if found != list(range(found[0], found[-1] + 1)):
            gap = next(n for n in range(found[0], found[-1]) if n not in set(found))
            raise self.damaged(f"entry {gap} of the log is missing")
        return found[-1]

    def take_place(self, number: int, entry: Mapping[str, Any]) -> None:
        """Write an entry of the log down.

        :raises FileExistsError: its place is taken.
        """
        self.write(log_name(number), entry)

    def is_taken(self, number: int) -> bool:
        """Tell whether there is an entry of this number."""
        storage.refresh(self.path("log"))
        return self.path(log_name(number)).exists()

    def read(self, name: str) -> dict[str, Any]:
        """Read a record.

        :raises LedgerDamagedError: it is missing, or is none of this version's.
        """
        record = None
        # Not raised from here: the error of a reader of JSON holds the whole record, and would hang on ours.
        with suppress(FileNotFoundError, NotADirectoryError, ValueError):
            record = json.loads(self.path(name).read_bytes())
        if record is None:
            raise self.damaged(f"{name} is missing or cannot be read")
        if not isinstance(record, dict) or record.pop("format", None) != FORMAT:
            raise self.damaged(f"{name} is of a form that this version does not know")
        return record

    def write(self, name: str, record: Mapping[str, Any], *, indent: int | None = 1) -> None:
        """Write a record that must not be there yet.

        :raises FileExistsError: it is there.
        """
        data = json.dumps(
            {"format": FORMAT, **record}, indent=indent, separators=None if indent else (",", ":")
        )
        storage.write_new(self.path(name), data.encode())

    def describe(self, name: str, record: Mapping[str, Any]) -> None:
        """Write down once whom this folder is about."""
        if not self.path(name).exists():
            self.write(name, record)

    def not_as_logged(self, name: str) -> LedgerDamagedError:
        """Return the error for a file that does not hold what the log says."""
        return self.damaged(f"{name} is missing or does not hold what the log says")

    def damaged(self, what: str, *, restore: str = "") -> LedgerDamagedError:
        """Return the error for something that is not as the log says.

        :param restore: what to restore, as a sentence; by default it is a file of the ledger.
        """
        way_on = f"{restore}; or {self._without_backup}" if restore else self.way_on
        return LedgerDamagedError(
            f"The ledger of {self.folder.name} is damaged: {what}. Nothing was sent on its word. {way_on}",
            what=what,
        )


def log_name(number: int) -> str:
    """Return the name of an entry of the log."""
    return f"log/{number:08d}.json"


def files(folder: Path) -> list[Path]:
    """Return the records in a folder, in the order of their names."""
    return [folder / name for name in sorted(storage.names(folder)) if name.endswith(".json")]


def folders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, rising."""
    return sorted(storage.names(folder))


def numbers(folder: Path) -> list[int]:
    """Return the numbers of the records in a folder that have one, rising."""
    # In one go: the log of a year has 730 names, and it is read at every look.
    return sorted(map(int, NUMBERED.findall("\n".join(storage.names(folder)))))
