"""Files behind signed URLs: what goes on the wire, what lies on the disk, and what nobody gets to see."""

from __future__ import annotations

import logging
import socket
import threading
from itertools import pairwise

import pytest
from requests.adapters import HTTPAdapter
from requests.cookies import create_cookie

from airflow_provider_heapbraze import __version__
from airflow_provider_heapbraze.clients.download import SignedFiles
from airflow_provider_heapbraze.clients.errors import (
    ConfigurationError,
    DownloadTooLargeError,
    ExportGoneError,
    HeapBrazeError,
    InterruptedCallError,
    NoAnswerError,
    PermanentError,
    RateLimitedError,
    ServerError,
    UnclearAnswerError,
)
from airflow_provider_heapbraze.clients.transport import BLOCK, RetryPolicy, Transport

SIGNATURE, ANSWERED, PERSON = "signature-0123456789", "answered-0123456789", "person-external-006"
STRANGERS = ("session-password-010", "session-header-011", "session-cookie-012", "netrc-password-013")
PRIVATE = (SIGNATURE, ANSWERED, PERSON, *STRANGERS)
# Storages say in many ways that a URL is of no use.
GONE = (400, 401, 403, 404, 405, 410, 416, 451)
ZIP = {"Content-Type": "application/zip"}


@pytest.fixture
def url(server):
    return f"{server.url}/exports/{PERSON}.zip?X-Amz-Signature={SIGNATURE}&X-Amz-Expires=3600"


@pytest.fixture
def files(make_transport, clock):
    return SignedFiles(make_transport(), "The file", clock=clock)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "export.zip"


@pytest.fixture
def save(files, url, file):
    def run(most_bytes=10 * BLOCK):
        files.save(url, file, most_bytes=most_bytes)
        return file.read_bytes()

    return run


def test_a_file_arrives_as_it_is(server, save, reply):
    content = bytes(range(256)) * (3 * BLOCK // 256) + b"the end"
    server.script(reply(200, content, ZIP))
    assert save() == content


def test_an_empty_file_is_a_file(server, save, reply):
    server.script(reply(200, b""))
    assert save() == b""


def test_what_is_there_is_replaced(server, save, file, reply):
    file.write_bytes(b"something older and longer")
    server.script(reply(200, b"new"))
    assert save() == b"new"


@pytest.mark.parametrize("ask", ["is_there", "save"])
def test_the_request_is_the_url_and_nothing_of_ours(
    server, files, url, file, session, reply, ask, monkeypatch
):
    netrc = file.with_name("netrc")
    netrc.write_text("machine 127.0.0.1 login somebody password netrc-password-013\n")
    monkeypatch.setenv("NETRC", str(netrc))
    session.auth = ("somebody", "session-password-010")
    session.headers["X-Extra"] = "session-header-011"
    session.cookies.set_cookie(create_cookie("c", "session-cookie-012", domain="127.0.0.1"))
    server.script(reply(200, b"content"))
    if ask == "save":
        files.save(url, file, most_bytes=100)
    else:
        files.is_there(url)
    assert server.only.method == "GET"
    assert server.url + server.only.path == url
    assert {name: value for name, value in server.only.headers.items() if name != "Host"} == {
        "User-Agent": f"airflow-provider-heapbraze/{__version__}",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
    }


class SpyAdapter(HTTPAdapter):
    """Notes what requests is told, and sends."""

    def __init__(self):
        super().__init__()
        self.settings = []

    def send(self, request, **settings):
        self.settings.append(settings)
        return super().send(request, **settings)


def test_the_settings_of_the_session_count(server, session, files, url, reply):
    spy = SpyAdapter()
    session.mount("http://", spy)
    session.verify = "/some/bundle.pem"
    session.cert = __file__
    server.script(reply(200, b""))
    files.is_there(url)
    assert spy.settings == [
        {
            "timeout": (10.0, 60.0),
            "verify": "/some/bundle.pem",
            "cert": __file__,
            "proxies": {},
            "stream": True,
        }
    ]


def test_a_proxy_of_the_session_is_asked(session, clock, reply):
    """It gets the name of the host, and the rest through a tunnel that it cannot look into."""
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def refuse():
            connection, _ = proxy.accept()
            with connection:
                asked.append(connection.recv(10_000))
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        session.proxies = {"https": f"http://127.0.0.1:{proxy.getsockname()[1]}"}
        transport = Transport(session, "https://rest.example", clock=clock, retry=RetryPolicy(attempts=1))
        with pytest.raises(NoAnswerError, match="ProxyError"):
            SignedFiles(transport, "The file").is_there(f"https://files.example/x?s={SIGNATURE}")
        thread.join()
    assert asked[0].startswith(b"CONNECT files.example:443 HTTP/1.")
    assert SIGNATURE.encode() not in asked[0]


@pytest.mark.parametrize(
    "url",
    [
        "http://files.example/x?signature-0123456789",
        "http://127.0.0.1.files.example/x?signature-0123456789",
        "ftp://files.example/x?signature-0123456789",
        "file:///etc/passwd?signature-0123456789",
        "https://somebody:signature-0123456789@files.example/x",
        "https://:signature-0123456789/x",
        "https://[::1/x?signature-0123456789",
        "https://a\u2100b/x?signature-0123456789",
        "signature-0123456789",
        "",
    ],
)
def test_other_addresses_are_refused_and_not_shown(server, files, file, url):
    file.write_bytes(b"older")
    for call in (lambda: files.is_there(url), lambda: files.save(url, file, most_bytes=9)):
        with pytest.raises(ConfigurationError, match="Nothing was sent") as caught:
            call()
        assert_silent(everything_of(caught.value))
    assert server.recorded == []
    assert file.read_bytes() == b"older"


@pytest.mark.parametrize(("status", "there"), [(200, True), *((status, False) for status in GONE)])
def test_a_file_is_there_or_not(server, files, url, reply, status, there):
    server.script(reply(status, b"<Error/>"))
    assert files.is_there(url) is there
    assert len(server.recorded) == 1


def test_looking_does_not_read_the_file(server, files, url, reply):
    server.script(reply(200, b"all that there is", missing=1_000_000_000))
    assert files.is_there(url)
    server.script(reply(200, b"", {"Content-Encoding": "gzip"}))
    assert files.is_there(url)


@pytest.mark.parametrize("status", GONE)
def test_a_file_that_is_not_there_cannot_be_had(server, save, file, reply, status):
    server.script(reply(status, b"<Error/>"))
    with pytest.raises(ExportGoneError, match=rf"{status}: it is not ready, or its URL has expired"):
        save()
    assert len(server.recorded) == 1
    assert not file.exists()


@pytest.mark.parametrize("ask", ["is_there", "save"])
class TestWhatBothDo:
    @pytest.fixture
    def call(self, files, url, file, ask):
        return {"is_there": lambda: files.is_there(url), "save": lambda: files.save(url, file, most_bytes=9)}[
            ask
        ]

    @pytest.mark.parametrize("trouble", [{"status": 500}, {"status": 503}, {"status": 408}, {"cut": True}])
    def test_what_may_pass_is_tried_again(self, server, call, reply, trouble):
        server.script(*[reply(**trouble)] * 2, reply(200, b""))
        call()
        assert len(server.recorded) == 3

    def test_it_waits_as_long_as_it_is_told(self, server, call, reply, clock):
        seen = []
        server.before_answer = lambda: seen.append(clock.now())
        server.script(*[reply(429, headers={"Retry-After": "60"})] * 5, reply(200, b""))
        call()
        assert [round(after - before) for before, after in pairwise(seen)] == [60] * 5

    @pytest.mark.parametrize(
        ("trouble", "error"),
        [
            ({"status": 500}, ServerError),
            ({"cut": True}, NoAnswerError),
            ({"status": 204, "body": b""}, UnclearAnswerError),
            ({"status": 206, "body": b"part"}, UnclearAnswerError),
        ],
    )
    def test_tries_are_used_up(self, server, call, file, reply, trouble, error):
        server.default = reply(**trouble)
        with pytest.raises(error):
            call()
        assert len(server.recorded) == 3
        assert not file.exists()

    @pytest.mark.parametrize("status", [301, 302, 307])
    def test_redirects_are_told_at_once(self, server, call, reply, status):
        server.default = reply(status, b"", {"Location": f"{server.url}/elsewhere?{SIGNATURE}"})
        with pytest.raises(PermanentError, match=f"The file answered {status}"):
            call()
        assert len(server.recorded) == 1

    def test_an_interrupted_transport_asks_for_nothing(self, server, files, call):
        files._transport.interrupt()
        with pytest.raises(InterruptedCallError):
            call()
        assert server.recorded == []


def test_who_asks_too_often_may_be_told_to_come_later(server, make_transport, clock, url, reply):
    server.default = reply(429, headers={"Retry-After": "3000"})
    transport = make_transport(retry=RetryPolicy(patience=60.0))
    with pytest.raises(RateLimitedError) as caught:
        SignedFiles(transport, "The file", clock=clock).is_there(url)
    assert caught.value.retry_after == 3000.0


@pytest.mark.parametrize("cut", [{"missing": 50}, {"missing": 5 * BLOCK}])
def test_a_download_that_is_cut_begins_again(server, save, reply, cut):
    whole = b"x" * BLOCK + b"the end"
    server.script(reply(200, whole * 2, **cut), reply(200, whole[:-7], **cut), reply(200, whole))
    assert save() == whole
    assert len(server.recorded) == 3


def test_a_download_that_is_cut_again_and_again_is_given_up(server, save, file, reply):
    server.default = reply(200, b"part", missing=1)
    with pytest.raises(NoAnswerError, match="was not answered to the end"):
        save()
    assert len(server.recorded) == 3
    assert not file.exists()


def test_a_chunked_download_that_is_cut_begins_again(server, save, reply):
    server.script(reply(200, b"part", chunked=True, missing=1), reply(200, b"whole", chunked=True))
    assert save() == b"whole"


def test_a_file_in_another_encoding_is_not_taken(server, save, file, reply):
    server.default = reply(200, b"packed", {"Content-Encoding": "gzip"})
    with pytest.raises(UnclearAnswerError, match="encoding"):
        save()
    assert len(server.recorded) == 3
    assert not file.exists()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_may_have_so_many_bytes_and_not_one_more(server, save, file, reply, chunked):
    server.script(reply(200, b"x" * 1000, chunked=chunked))
    assert len(save(most_bytes=1000)) == 1000
    server.script(reply(200, b"x" * 1001, chunked=chunked))
    with pytest.raises(DownloadTooLargeError, match="more than 1,000 bytes"):
        save(most_bytes=1000)
    assert not file.exists()
    assert len(server.recorded) == 2


def test_a_file_that_is_announced_as_too_large_is_not_begun(server, save, files, file, url, reply):
    server.script(reply(200, b"", missing=1001))
    with pytest.raises(DownloadTooLargeError):
        save(most_bytes=1000)


def test_an_interrupt_ends_a_download(server, files, url, file, reply):
    server.script(reply(200, b"content"))
    server.before_answer = files._transport.interrupt
    with pytest.raises(InterruptedCallError, match="download"):
        files.save(url, file, most_bytes=100)
    assert not file.exists()
    assert len(server.recorded) == 1


def test_a_disk_that_fails_is_no_answer_that_fails(server, files, url, tmp_path, reply):
    server.script(reply(200, b"content"))
    with pytest.raises(FileNotFoundError):
        files.save(url, tmp_path / "no such folder" / "file", most_bytes=100)
    assert len(server.recorded) == 1


def test_downloads_are_counted(server, files, url, file, reply):
    server.script(reply(404), reply(503), reply(200, b"content"))
    files.is_there(url)
    files.save(url, file, most_bytes=100)
    statistics = files._transport.statistics.as_dict()
    assert statistics["by_status"] == {"200": 1, "404": 1, "503": 1}


def everything_of(error):
    """Return an exception and all that hangs on it, as text."""
    seen = []
    while error is not None:
        seen.append(f"{error} {error!r} {error.args} {vars(error)} {getattr(error, '__notes__', '')}")
        assert error.__cause__ is None or error.__cause__ is error.__context__
        error = error.__context__
    return " ".join(seen)


def assert_silent(text):
    assert [secret for secret in PRIVATE if secret in text] == []


QUOTE = " ".join(PRIVATE)
ANSWERS = {
    "success": {"status": 200, "body": QUOTE.encode()},
    "another 2xx": {"status": 206, "body": QUOTE.encode()},
    "too large": {"status": 200, "body": QUOTE.encode() * 1000},
    "encoded": {"status": 200, "body": QUOTE.encode(), "headers": {"Content-Encoding": QUOTE}},
    "redirect": {"status": 307, "body": QUOTE.encode(), "headers": {"Location": f"/elsewhere?{ANSWERED}"}},
    "refused": {"status": 400, "body": QUOTE.encode()},
    "gone": {"status": 403, "body": QUOTE.encode()},
    "too many": {"status": 429, "body": QUOTE.encode(), "headers": {"Retry-After": "3000"}},
    "failed": {"status": 500, "body": QUOTE.encode(), "headers": {"Retry-After": QUOTE}},
    "cut": {"cut": True},
    "cut in the body": {"status": 200, "body": QUOTE.encode(), "missing": 10},
    "odd headers": {"status": 200, "body": b"", "headers": {"Connection": "close", "Bad header": QUOTE}},
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("ask", ["is_there", "save"])
def test_nothing_private_is_shown(server, files, url, file, reply, caplog, ask, answer):
    caplog.set_level(logging.DEBUG)
    server.default = reply(**answer)
    shown = [repr(files), repr(files._file), repr(files._look)]
    try:
        shown.append(files.is_there(url) if ask == "is_there" else files.save(url, file, most_bytes=1000))
    except HeapBrazeError as error:
        shown.append(everything_of(error))
    assert SIGNATURE in server.recorded[0].path, "else there would be nothing to show"
    assert not [request.path for request in server.recorded if "elsewhere" in request.path]
    shown += [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    shown += [str(files._transport.statistics.as_dict())]
    assert_silent(" ".join(map(str, shown)))


def test_a_host_that_is_not_there_is_not_shown_with_its_url(files, file, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(NoAnswerError, match="ConnectionError") as caught:
        files.save(f"http://127.0.0.1:9/{PERSON}?{SIGNATURE}", file, most_bytes=1)
    assert_silent(everything_of(caught.value))
    for record in caplog.records:
        assert_silent(f"{record.getMessage()} {record.__dict__}")


def test_other_requests_are_still_logged(server, files, url, session, reply, caplog):
    """Else the tests above would pass with logging turned off."""
    caplog.set_level(logging.DEBUG, logger="urllib3")
    server.script(reply(200, b""))
    files.is_there(url)
    assert caplog.messages == []
    session.get(f"{server.url}/elsewhere?{ANSWERED}")
    assert [message for message in caplog.messages if ANSWERED in message]
