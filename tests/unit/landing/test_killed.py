"""The receiver is killed, again and again, under load; what it acknowledged is there, whole, and once."""

from __future__ import annotations

import http.client
import json
import os
import random
import threading
import time
from collections import defaultdict
from itertools import count

from tests.unit.landing.processes import Process
from tests.unit.landing.receiving import batch, bearer, folded, page, signed

KILLS = int(os.environ.get("HEAPBRAZE_KILLS", "8"))
SENDERS = 4
SEGMENTS = 5
MEMBERS = [f"person-{number}" for number in range(200)]


class Sender:
    """Sends pages and batches, one after another; what got no answer is sent again, as Heap and Braze do.

    :param name: no other sender has it.
    """

    def __init__(self, name):
        self.name = name
        self.acknowledged = set()
        self.numbers = count()
        self.unanswered = None

    def send(self, port):
        """Send until the receiver is gone."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            while True:
                number = next(self.numbers) if self.unanswered is None else self.unanswered
                self.unanswered = number
                assert self.post(connection, number) == 200
                self.acknowledged.add(self.key(number))
                self.unanswered = None
        except (OSError, http.client.HTTPException):
            connection.close()

    def key(self, number):
        return f"{self.name}-{number}"

    def post(self, connection, number):
        if number % 2:
            key = self.key(number)
            body = page(number % SEGMENTS, key, members=[*MEMBERS, key])
            connection.request("POST", "/heap/segments", body, signed(body, int(time.time() * 1000)))
        else:
            connection.request("POST", f"/braze/currents/{self.name}", batch(self.key(number)), bearer())
        answer = connection.getresponse()
        answer.read()
        return answer.status


def keys_of(path):
    """Return what has landed, by key, as a reader sees it: names that begin with a dot are passed over."""
    found = {}
    for file in path.rglob("*.ndjson"):
        text = file.read_bytes()
        assert text.endswith(b"\n")
        for line in map(json.loads, text.splitlines()):
            content = line.get("body", line)
            key = content["events"][0]["id"] if "events" in content else task_of(content)
            assert found.setdefault(key, content) == content
    return found


def task_of(content):
    *members, own = [member["id"] for member in content["data"]["add"]]
    assert members == MEMBERS
    assert own == content["data"]["sync_info"]["sync_task_id"]
    return own


def test_killed_at_random_moments(tmp_path):
    moments = random.Random(20261125)
    senders = [Sender(f"sender-{number}") for number in range(SENDERS)]
    for _ in range(KILLS):
        with Process(tmp_path) as process:
            threads = [threading.Thread(target=sender.send, args=(process.port,)) for sender in senders]
            for thread in threads:
                thread.start()
            time.sleep(moments.uniform(0.02, 0.4))
            assert process.process.poll() is None
        for thread in threads:
            thread.join()
    acknowledged = set().union(*(sender.acknowledged for sender in senders))
    unanswered = {sender.key(sender.unanswered) for sender in senders}
    landed = keys_of(tmp_path)
    assert len(acknowledged) > KILLS
    assert acknowledged <= landed.keys()
    # Nothing else is there, but what was sent and got no answer.
    assert landed.keys() - acknowledged <= unanswered
    segments = defaultdict(list)
    for key, content in landed.items():
        if "data" in content:
            segments[content["data"]["segment"]["id"]].append(key)
    assert len(segments) == SEGMENTS
    for segment_id, keys in segments.items():
        assert folded(tmp_path, segment_id) == sorted([*MEMBERS, *keys]), "each once"
