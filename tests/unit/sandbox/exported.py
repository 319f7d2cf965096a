"""What a segment export gives, read with nothing but the standard library."""

from __future__ import annotations

import io
import json
import time
import zipfile


def lines(*texts: bytes) -> list[dict]:
    return [json.loads(line) for text in texts for line in text.splitlines()]


def unzipped(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def exported(caller, segment_id="s", **body) -> list[dict]:
    answer = caller.export(segment_id, **body)
    assert answer.status_code == 201, answer.text
    return lines(*unzipped(caller.fetch(answer.json()["url"]).content).values())


def names(users) -> list[str]:
    return sorted(user["external_id"] for user in users)


def until(condition):
    deadline = time.monotonic() + 20
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found
