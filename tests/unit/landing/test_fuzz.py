"""Thousands of malformed requests: no 500, nothing landed; of strangers there is no file at all."""

from __future__ import annotations

import asyncio
import random

from airflow_provider_heapbraze.landing.app import make_app
from tests.unit.landing.receiving import (
    NOW,
    Clock,
    ask,
    batch,
    bearer,
    files,
    head,
    page,
    quarantined,
    settings,
    signed,
)

REQUESTS = 10_000
SIGNED_REQUESTS = 400
CONNECTIONS = 300
REFUSED = {400, 401, 403, 404, 405, 413}


def encoded(headers):
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


class Fuzzer:
    """Makes requests that must not be landed.

    :param seed: the same ones are made again.
    """

    def __init__(self, seed):
        self.dice = random.Random(seed)

    def of_strangers(self):
        """Make one that is not signed as it should be, or goes nowhere."""
        kinds = (
            self.unsigned,
            self.signed_otherwise,
            self.signed_by_another,
            self.strange_token,
            self.strange_path,
            self.too_large,
        )
        return self.dice.choice(kinds)()

    def of_senders(self):
        """Make one that is signed as it should be, and cannot be understood."""
        return self.dice.choice((self.signed_garbage, self.damaged_batch, self.too_deep))()

    def unsigned(self):
        value = self.mutated(signed(page())["Heap-Hash"].encode().replace(b"hmac", b"HMAC", 1))
        return "POST", "/heap/segments", [(b"heap-hash", value)] * self.dice.randrange(3), page()

    def signed_garbage(self):
        body = self.mutated(page()[: self.dice.randrange(len(page()))])
        return "POST", "/heap/segments", encoded(signed(body)), body

    def signed_by_another(self):
        body = self.dice.choice([page(), self.mutated(page())])
        return "POST", "/heap/segments", encoded(signed(body, secret="some-other-secret")), body

    def signed_otherwise(self):
        late = self.dice.choice([-1, 1]) * self.dice.randrange(60_001, 10**13)
        return "POST", "/heap/segments", encoded(signed(page(), max(0, NOW + late))), page()

    def damaged_batch(self):
        body = self.mutated(batch("id-1", "id-2")[: self.dice.randrange(1, 100)]) + b"\xff{"
        return "POST", "/braze/currents/main", encoded(bearer()), body

    def strange_token(self):
        value = self.mutated(bearer()["Authorization"].encode()) + b"x"
        return "POST", "/braze/currents/main", [(b"authorization", value)], batch("id-1")

    def strange_path(self):
        path = self.mutated(b"/braze/currents/main").decode("latin-1") + self.dice.choice("/.%~ü\0\n")
        method = self.dice.choice(["POST", "GET", "PUT", "PATCH", "", "POST\0"])
        return method, path, encoded(bearer()), batch("id-1")

    def too_deep(self):
        body = nested(self.dice.choice([65, 100, 1_000]) + self.dice.randrange(1_000))
        packed = [(b"content-encoding", b"gzip")] * self.dice.randrange(2)
        return "POST", "/heap/segments", [*encoded(signed(body)), *packed], body

    def too_large(self):
        body = nested(10_000)
        length = [(b"content-length", b"%d" % len(body))] * self.dice.randrange(2)
        return "POST", "/heap/segments", [*encoded(signed(body)), *length], body

    def mutated(self, data):
        data = bytearray(data)
        for _ in range(self.dice.randrange(1, 5)):
            place = self.dice.randrange(len(data) + 1)
            self.dice.choice([self.insert, self.replace, self.remove])(data, place)
        return bytes(data)

    def insert(self, data, place):
        data[place:place] = self.dice.randbytes(self.dice.randrange(1, 6))

    def replace(self, data, place):
        data[place : place + 1] = self.dice.randbytes(1)

    def remove(self, data, place):
        del data[place : place + self.dice.randrange(1, 6)]

    def cut(self, body):
        places = sorted(self.dice.randrange(len(body) + 1) for _ in range(self.dice.randrange(3)))
        return [body[start:end] for start, end in zip([0, *places], [*places, len(body)], strict=True)]


def nested(depth):
    return b'{"data":{"segment":{"id":1},"x":' + b"[" * depth + b"]" * depth + b"}}"


def statuses(app, fuzzer, requests, expected):
    """Send requests; return how they were answered."""

    async def send_all():
        seen = set()
        for method, path, headers, body in requests:
            status = await ask(app, method, path, headers, fuzzer.cut(body))
            assert status in expected, (method, path, headers, body)
            seen.add(status)
        return seen

    return asyncio.run(send_all())


def test_ten_thousand_malformed_requests(tmp_path):
    fuzzer = Fuzzer(20261125)
    app = make_app(settings(tmp_path, most_bytes=8_000), clock=Clock())
    requests = [fuzzer.of_strangers() for _ in range(REQUESTS)]
    assert statuses(app, fuzzer, requests, REFUSED) == REFUSED
    assert not list(tmp_path.rglob("*"))


def test_what_senders_themselves_sent_malformed_is_kept_as_it_came(tmp_path):
    fuzzer = Fuzzer(5112027)
    app = make_app(settings(tmp_path, most_bytes=8_000), clock=Clock())
    requests = [fuzzer.of_senders() for _ in range(SIGNED_REQUESTS)]
    assert statuses(app, fuzzer, requests, {200}) == {200}
    sent = {
        ("quarantine/heap" if "heap" in path else "quarantine/braze/main", body)
        for _, path, _, body in requests
    }
    assert quarantined(tmp_path) == sorted(sent)


def test_garbage_on_the_wire(receiver, tmp_path):
    fuzzer = Fuzzer(5112026)
    answers = set()
    for number in range(CONNECTIONS):
        whole = head("/braze/currents/main", bearer("some-wrong-token"), 2) + b"{}"
        data = fuzzer.mutated(whole) if number % 3 else fuzzer.dice.randbytes(200)
        with receiver.connect() as sock:
            sock.sendall(data)
            sock.shutdown(1)
            answers.add(sock.recv(12))
    assert answers - {b""} <= {b"HTTP/1.1 " + str(status).encode() for status in REFUSED}
    assert receiver.client.get("/health").status_code == 200
    receiver.wait_until_open(0)
    assert files(tmp_path) == []
