"""Folders on the local disk for work under way; what a killed process left there, the next one removes.

Beside the layers, like :mod:`.storage`. A folder is in use while its lock is taken: the kernel gives that
back however a process ends. A process's number would not tell, since it comes again, in containers soon.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# With the machine's name: where several share the place, locks of one may not be seen by another.
PREFIX = f"heapbraze-work-{platform.node()}-"
LOCK = ".lock"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a folder that is gone when the work is done."""
    with suppress(OSError):  # there are places that may be written and not listed
        _remove_left_behind()
    # The lock goes first: NFS keeps an open file. Another process may then remove the folder with us.
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name, _locked(Path(name)):
        yield Path(name)


def _locked(folder: Path) -> IO[bytes]:
    """Take a new folder's lock; it gets its name when it is taken, so that nobody finds it free before."""
    lock = (folder / f"{LOCK}.new").open("xb")
    with suppress(OSError):  # a file system without locks: then nobody takes the folder for left behind
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (folder / f"{LOCK}.new").rename(folder / LOCK)
    return lock


def _remove_left_behind() -> None:
    for folder in Path(tempfile.gettempdir()).iterdir():
        if folder.name.startswith(PREFIX):
            with suppress(OSError):  # it is in use, or another process is removing it
                _remove_if_left_behind(folder)


def _remove_if_left_behind(folder: Path) -> None:
    """Remove a folder of ours that nobody uses.

    :raises OSError: somebody does.
    """
    there = folder.lstat()
    if stat.S_ISDIR(there.st_mode) and there.st_uid == os.getuid():
        with (folder / LOCK).open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
