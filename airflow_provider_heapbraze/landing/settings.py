"""What the receiver has to know: from the environment, or from whoever mounts it."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

PATH = "HEAPBRAZE_LANDING_PATH"
HEAP_SECRETS = "HEAPBRAZE_LANDING_HEAP_SECRETS"
BRAZE_TOKENS = "HEAPBRAZE_LANDING_BRAZE_TOKENS"
HOST = "HEAPBRAZE_LANDING_HOST"
PORT = "HEAPBRAZE_LANDING_PORT"
MOST_BYTES = "HEAPBRAZE_LANDING_MOST_BYTES"
HIGHEST_PORT = 65_535
MOST_OPEN = 64
# An event of Braze may have 900 KB, and comes in an envelope.
LEAST_BYTES_THERE_MUST_BE = 1_000_000
MOST_BYTES_THERE_MAY_BE = 64 << 20


@dataclass(frozen=True)
class Settings:
    """Where deliveries land and whom they are taken from.

    :param path: a path with pathlib's interface.
    :param heap_secrets: of Heap's webhook; several while they are rotated.
    :param braze_tokens: of Braze's connector, likewise.
    :param most_bytes: of a body. Braze splits a larger batch; Heap does not split a page, and does not say
        how large one may be.
    :param most_open: deliveries of each sender that are being taken; memory holds as many bodies, twice.
    :param host: where the standalone server listens.
    :param port: likewise; 0 takes a free one.
    """

    path: Path
    heap_secrets: tuple[str, ...] = field(default=(), repr=False)
    braze_tokens: tuple[str, ...] = field(default=(), repr=False)
    most_bytes: int = 8 << 20
    most_open: int = MOST_OPEN
    host: str = "127.0.0.1"
    port: int = 8088

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings.

        :param environment: ``os.environ``, or what stands for it.
        :raises ConfigurationError: one is missing, or of no use.
        """
        settings = cls(
            path=_path(environment.get(PATH, "").strip()),
            heap_secrets=_secrets(HEAP_SECRETS, environment),
            braze_tokens=_secrets(BRAZE_TOKENS, environment),
            host=environment.get(HOST, "").strip() or cls.host,
            port=_port(environment.get(PORT, "").strip() or str(cls.port)),
            most_bytes=_bytes(environment.get(MOST_BYTES, "").strip() or str(cls.most_bytes)),
        )
        if not settings.heap_secrets and not settings.braze_tokens:
            raise ConfigurationError(
                f"Neither {HEAP_SECRETS} nor {BRAZE_TOKENS} is set: nobody could deliver anything. Set the "
                "secret of Heap's webhook, or the token of Braze's connector, or both."
            )
        return settings


def _path(location: str) -> Path:
    if not location:
        raise ConfigurationError(
            f"{PATH} is not set. Give it a folder, or a location such as s3://bucket/prefix."
        )
    if "://" not in location:
        return _folder(Path(location).absolute())
    if re.search(r"://[^/@]*:[^/@]*@", location):
        raise ConfigurationError(
            f"{PATH} holds a password. Leave it out: the store's client has settings of its own for that."
        )
    from upath import UPath

    path = None
    with suppress(ImportError, ValueError):
        found = UPath(location)
        found.fs  # noqa: B018 - it looks for the store's client
        path = found
    if path is None:
        raise ConfigurationError(
            f"No client is installed for {location.partition('://')[0]}://, which {PATH} names. Install the "
            "one of fsspec that has it, for example s3fs for s3."
        )
    here = storage.local(path)
    return cast("Path", path) if here is None else _folder(here)


def _folder(path: Path) -> Path:
    if path.exists() and not path.is_dir():
        raise ConfigurationError(f"{PATH} names a file. Give it a folder.")
    return path


def _secrets(name: str, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Read secrets that commas or white space separate."""
    found = tuple(environment.get(name, "").replace(",", " ").split())
    if not all(secret.isascii() and secret.isprintable() for secret in found):
        raise ConfigurationError(
            f"{name} holds a character that is not ASCII. Copy it again, without quotes of a word processor."
        )
    return found


def _port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > HIGHEST_PORT:
        raise ConfigurationError(f"{PORT} must be a number from 0 to {HIGHEST_PORT}.")
    return int(text)


def _bytes(text: str) -> int:
    there_may_be = range(LEAST_BYTES_THERE_MUST_BE, MOST_BYTES_THERE_MAY_BE + 1)
    if not (text.isascii() and text.isdigit() and int(text) in there_may_be):
        raise ConfigurationError(
            f"{MOST_BYTES} must be a number of bytes, at least {LEAST_BYTES_THERE_MUST_BE:,} and at most "
            f"{MOST_BYTES_THERE_MAY_BE:,}. An event of Braze may have 900 KB, and Heap does not split a "
            "page: what is refused for its size and cannot be split comes again and again. As many as "
            f"{MOST_OPEN} bodies of each sender are held in memory."
        )
    return int(text)
