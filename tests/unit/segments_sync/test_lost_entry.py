"""An entry or a description that is lost does no harm: what it told of is still in the landing path."""

from __future__ import annotations

import pytest

from tests.unit.segments_sync.pushing import page


@pytest.mark.parametrize("pattern", ["log/00000002.json", "segment.json", "snapshots/00000001-*"])
def test_what_is_not_needed_or_can_be_folded_again(pushed, pattern):
    pushed.land(page("first", ["ann", "bob"]), at=0)
    assert pushed.members() == ["ann", "bob"]
    pushed.land(page("second", ["eve"], ["bob"]), at=10)
    assert pushed.members() == ["ann", "eve"]
    for file in pushed.ledger.glob(f"segment-syncs/*/{pattern}"):
        file.unlink()
    pushed.land(page("third", ["dan"], ["ann"]), at=20)
    assert pushed.members() == ["dan", "eve"]
