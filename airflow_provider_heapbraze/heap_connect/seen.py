"""Which run of a task took which dump, in the user's own storage: what the sensor for dumps goes by.

Per task and source there is a folder::

    task.json             what this is about
    runs/<digest>.json    a run has begun to wait; the newest dump that had been taken by then
    dumps/<dump id>.json  the run that took it

A dump is taken by create-if-absent, so that no two runs take the same. A run finds its own among those that
were taken after it had begun: the record may grow for years, and only its end is read.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.heap_connect.manifests import find_manifests
from airflow_provider_heapbraze.ledger_folder import LedgerFolder, numbers

if TYPE_CHECKING:
    from pathlib import Path

BEFORE_ANY = -1


@dataclass(frozen=True)
class Dump:
    """A complete dump.

    :param dump_id: Heap's number of it.
    :param tables: how many tables it has.
    """

    dump_id: int
    tables: int


@dataclass(frozen=True)
class Look:
    """What a look at the manifests found.

    :param dump: the newest one that counts; None where there is none.
    :param after: the newest dump that need not be looked at again.
    """

    dump: Dump | None
    after: int


class SeenDumps(LedgerFolder):
    """The record of one task and source.

    :param ledger: folder of all ledgers; a path with pathlib's interface.
    :param source: location of the dumps.
    :param task: the same in every run of the task.
    """

    def __init__(self, ledger: Path, source: str, task: str) -> None:
        digest = hashlib.sha256(json.dumps([source.rstrip("/"), task]).encode()).hexdigest()[:32]
        super().__init__(
            ledger / "dump-sensors" / digest,
            way_on="remove the folder: the next run then takes the newest dump, even if it was taken before.",
        )
        self._about = {"source": source.rstrip("/"), "task": task}

    def newest(self) -> int:
        """Return the newest dump that a run took."""
        return max(numbers(self.path("dumps")), default=BEFORE_ANY)

    def begin(self, run_id: str) -> int:
        """Write down that a run waits, once; return the newest dump that had been taken by then.

        :raises LedgerDamagedError: the record cannot be read.
        """
        name = f"runs/{hashlib.sha256(run_id.encode()).hexdigest()[:32]}.json"
        if not self.path(name).exists():
            self.describe("task.json", self._about)
            with suppress(FileExistsError):  # the run's other try, which Airflow takes for dead
                self.write(name, {"run_id": run_id, "after": self.newest()})
        after = self.read(name).get("after")
        if not isinstance(after, int):
            raise self.not_as_logged(name)
        return after

    def taken_by(self, run_id: str, after: int) -> Dump | None:
        """Return the dump that a run took; None where it took none.

        :param after: what :meth:`begin` returned.
        :raises LedgerDamagedError: the record cannot be read.
        """
        for dump_id in numbers(self.path("dumps")):
            if dump_id > after:
                record = self.read(_name(dump_id))
                if record.get("run_id") == run_id:
                    return Dump(dump_id, record["tables"])
        return None

    def take(self, run_id: str, dump: Dump) -> bool:
        """Take a dump for a run; tell whether it is the run's: another may have been faster."""
        try:
            self.write(_name(dump.dump_id), {"run_id": run_id, "tables": dump.tables})
        except FileExistsError:
            return False
        return True


def take_dump(root: Path, table: str | None, seen: SeenDumps, run_id: str) -> Look:
    """Return the dump that a run took before, whatever has come since; else take the newest that nobody has.

    :param root: folder that holds ``manifests``.
    :param table: only a dump with this table counts; None: any.
    :raises TransientError: a manifest that matters cannot be read.
    :raises LedgerDamagedError: the record cannot be read.
    """
    dump = seen.taken_by(run_id, seen.begin(run_id))
    if dump is not None:
        return Look(dump, dump.dump_id)
    look = newest_dump(root, table, seen.newest())
    if look.dump is None or seen.take(run_id, look.dump):
        return look
    return Look(None, look.after)


def newest_dump(root: Path, table: str | None, after: int) -> Look:
    """Look for the newest dump that counts.

    :param root: folder that holds ``manifests``.
    :param table: only a dump with this table counts, in whatever case it is written; None: any.
    :param after: only dumps after this one count.
    :raises TransientError: a manifest that matters cannot be read.
    """
    newer = [manifest for manifest in find_manifests(root) if manifest.dump_id > after]
    newest = newer[-1].dump_id if newer else after
    for manifest in reversed(newer):
        tables = manifest.tables()
        if table is None or table.casefold() in {held.name.casefold() for held in tables}:
            return Look(Dump(manifest.dump_id, len(tables)), newest)
    return Look(None, newest)


def _name(dump_id: int) -> str:
    return f"dumps/{dump_id}.json"
