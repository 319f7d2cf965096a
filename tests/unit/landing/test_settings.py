"""What the environment says, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.landing.settings import Settings

GOOD = {
    "HEAPBRAZE_LANDING_PATH": "/data/landing",
    "HEAPBRAZE_LANDING_HEAP_SECRETS": "private-secret-1",
    "HEAPBRAZE_LANDING_BRAZE_TOKENS": "private-token-1",
}


def read(**changes):
    return Settings.from_environment(
        GOOD | {f"HEAPBRAZE_LANDING_{name}": value for name, value in changes.items()}
    )


def test_what_is_read():
    settings = read(HOST=" 0.0.0.0 ", PORT="80", MOST_BYTES="1000000")
    assert settings == Settings(
        Path("/data/landing"),
        ("private-secret-1",),
        ("private-token-1",),
        host="0.0.0.0",  # noqa: S104 - nothing listens
        port=80,
        most_bytes=1_000_000,
    )


def test_what_nobody_says():
    assert (read().host, read(HOST="", PORT="").port) == ("127.0.0.1", 8088)


@pytest.mark.parametrize("text", ["private-1,private-2", " private-1  private-2\n", "private-1, private-2,"])
def test_several_secrets(text):
    assert read(HEAP_SECRETS=text).heap_secrets == ("private-1", "private-2")
    assert read(BRAZE_TOKENS=text).braze_tokens == ("private-1", "private-2")


def test_one_sender_is_enough():
    assert read(HEAP_SECRETS="").heap_secrets == ()
    assert read(BRAZE_TOKENS=" , ").braze_tokens == ()


@pytest.mark.parametrize("location", ["file:///data/landing", "local:///data/landing", " /data/landing/ "])
def test_a_local_path(location):
    assert read(PATH=location).path == Path("/data/landing")


def test_a_relative_path_does_not_move_with_the_process(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert read(PATH="landing").path == tmp_path / "landing"


def test_a_path_in_an_object_store():
    assert read(PATH="memory://bucket/landing").path.protocol == "memory"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"PATH": ""}, "HEAPBRAZE_LANDING_PATH is not set"),
        ({"PATH": "nonsense://bucket"}, "No client is installed for nonsense://"),
        ({"PATH": "s3://private-key:private-password@bucket"}, "holds a password"),
        ({"PATH": __file__}, "names a file"),
        ({"PATH": f"file://{__file__}"}, "names a file"),
        ({"HEAP_SECRETS": "", "BRAZE_TOKENS": ""}, "Neither"),
        ({"HEAP_SECRETS": "private-“secret”"}, "HEAP_SECRETS holds a character"),
        ({"BRAZE_TOKENS": "private-tokén"}, "BRAZE_TOKENS holds a character"),
        ({"PORT": "65536"}, "PORT must be"),
        ({"PORT": "-1"}, "PORT must be"),
        ({"PORT": "http"}, "PORT must be"),
        ({"PORT": "٨٠"}, "PORT must be"),
        ({"MOST_BYTES": "0"}, "MOST_BYTES must be"),
        ({"MOST_BYTES": "999999"}, "at least 1,000,000.*900 KB.*again and again"),
        ({"MOST_BYTES": "8 MiB"}, "MOST_BYTES must be"),
        ({"MOST_BYTES": str(1 << 40)}, "MOST_BYTES must be"),
    ],
)
def test_what_is_wrong_is_said_without_what_is_private(changes, reason):
    with pytest.raises(ConfigurationError, match=reason) as caught:
        read(**changes)
    assert "private" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_no_secret_is_shown():
    assert "private" not in repr(read())
