"""The folder of what the processes of a machine share."""

from __future__ import annotations

import os
import stat
import tempfile

import pytest

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.clients.shared_file import shared_folder


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Give the folder in which the machine keeps temporary files, empty."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def permissions(folder):
    return stat.S_IMODE(folder.stat().st_mode)


def test_the_shared_folder_is_for_nobody_else(temporary):
    folder = shared_folder()
    assert folder.parent == temporary
    assert permissions(folder) == 0o700
    assert shared_folder() == folder


def test_a_shared_folder_that_was_open_to_others_is_not_any_more(temporary):
    folder = shared_folder()
    folder.chmod(0o777)
    shared_folder()
    assert permissions(folder) & 0o077 == 0


@pytest.mark.parametrize("there", ["a link", "a link to nothing", "a file"])
def test_a_shared_folder_must_be_a_folder(temporary, there):
    folder = shared_folder()
    folder.rmdir()
    if there == "a file":
        folder.touch()
    else:
        target = temporary / "elsewhere"
        folder.symlink_to(target)
        if there == "a link":
            target.mkdir()
    with pytest.raises(ConfigurationError, match="TMPDIR"):
        shared_folder()


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a folder away")
def test_the_shared_folder_of_somebody_else_is_not_used(temporary):
    os.chown(shared_folder(), 12_345, 12_345)
    with pytest.raises(ConfigurationError, match="belongs to somebody else"):
        shared_folder()


def test_a_shared_folder_that_cannot_be_made_is_told_with_a_way_on(temporary, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "missing"))
    with pytest.raises(ConfigurationError, match="TMPDIR"):
        shared_folder()
