"""The receiver as it is run: started, ended, on a disk that is full."""

from __future__ import annotations

import http.client
import signal
import socket
import time

import httpx
import pytest

from tests.unit.landing.processes import Process
from tests.unit.landing.receiving import answer_of, batch, bearer, files, head, landed, page, signed


def post(port, path, body, headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", path, body, headers)
    status = connection.getresponse().status
    connection.close()
    return status


def now():
    return int(time.time() * 1000)


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A process that was asked to end while a delivery was under way; its path, status and output."""
    path = tmp_path_factory.mktemp("ended")
    with Process(path) as process:
        post(process.port, "/braze/currents/private-source", batch("private-id"), bearer())
        with socket.create_connection(("127.0.0.1", process.port), timeout=60) as sock:
            headers = {**signed(page(), now()), "Expect": "100-continue"}
            sock.sendall(head("/heap/segments", headers, len(page())))
            assert sock.recv(100).startswith(b"HTTP/1.1 100")  # it is being read
            process.process.send_signal(signal.SIGTERM)
            sock.sendall(page())
            status = answer_of(sock)[0]
        process.process.wait(60)
    return path, status, process


def test_sigterm_ends_it_after_what_is_open_has_landed(ended):
    path, status, process = ended
    assert (status, process.process.returncode) in {(200, 0), (200, -signal.SIGTERM)}
    assert len(landed(path)) == 2


def test_it_says_where_it_lands_and_nothing_private(ended):
    path, _, process = ended
    assert f"Landing at file://{path}; taken from: heap, braze" in process.said
    assert "private" not in process.said


def test_without_settings_it_ends_with_a_sentence():
    process = Process("").process
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert said.startswith("HEAPBRAZE_LANDING_PATH is not set.")
    assert "Traceback" not in said


def test_where_nothing_can_ever_be_written_it_ends_with_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    process = Process(tmp_path / "file" / "landing").process
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert said.startswith("The landing path cannot be written (ENOTDIR).")
    assert "HEAPBRAZE_LANDING_PATH" in said
    assert "Traceback" not in said


def test_where_nothing_can_be_written_yet_it_says_so_and_is_not_ready(tmp_path):
    # The kernel lets no file have a byte: as a full disk.
    with Process(tmp_path, wrapper=["bash", "-c", 'ulimit -f 0; exec "$@"', "bash"]) as process:
        assert "The landing path cannot be written (EFBIG)." in process.said
        assert httpx.get(f"http://127.0.0.1:{process.port}/ready").status_code == 503
        assert post(process.port, "/braze/currents/main", batch("id-1"), bearer()) == 503


def test_where_it_cannot_listen_it_ends_with_a_sentence(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = Process(tmp_path, HEAPBRAZE_LANDING_PORT=str(taken.getsockname()[1])).process
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert said.startswith("Cannot listen on 127.0.0.1:")


def test_what_the_disk_does_not_take_is_not_there_at_all(tmp_path):
    # The kernel stops every file at 64 KiB, in the middle of a write: as a full disk does.
    with Process(tmp_path, wrapper=["bash", "-c", 'ulimit -f 64; exec "$@"', "bash"]) as process:
        large, small = batch("x" * 100_000), batch("id-1")
        sent = [
            post(process.port, "/braze/currents/main", body, bearer())
            for body in (small, large, large, small)
        ]
        body = page(members=["x" * 100_000])
        sent.append(post(process.port, "/heap/segments", body, signed(body, now())))
    assert sent == [200, 503, 503, 200, 503]
    assert len(landed(tmp_path)) == len(files(tmp_path)) == 2
    assert "A write to the landing path failed: EFBIG." in process.said
