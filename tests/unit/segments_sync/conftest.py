from __future__ import annotations

from uuid import uuid4

import pytest
from upath import UPath

from tests.unit.segments_sync.pushing import Pushed


@pytest.fixture
def pushed(tmp_path):
    return Pushed(tmp_path)


@pytest.fixture
def pushed_to_a_store():
    return Pushed(UPath(f"memory://bucket-{uuid4().hex}"))
