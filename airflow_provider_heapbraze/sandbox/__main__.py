"""Start the sandbox: ``python -m airflow_provider_heapbraze.sandbox``."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from typing import TYPE_CHECKING

from pydantic import ValidationError

from airflow_provider_heapbraze.sandbox import connections
from airflow_provider_heapbraze.sandbox.models import Faults
from airflow_provider_heapbraze.sandbox.server import listen, make_server, url_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until it is interrupted."""
    options = _parser().parse_args(arguments)
    try:
        faults = Faults.model_validate_json(options.faults)
        sock = listen(options.host, options.port)
    except ValidationError as error:
        sys.exit(f"--faults: {error}")
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    if options.latency is not None:
        faults = faults.model_copy(update={"latency": options.latency})
    _greet(url_of(sock), options.users)
    with contextlib.suppress(KeyboardInterrupt):
        make_server(users=options.users, faults=faults).run(sockets=[sock])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_heapbraze.sandbox",
        description="A stand-in Braze and Heap on this machine.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--users", type=int, default=0, help="start with user-0, user-1, … (default: none)")
    parser.add_argument("--latency", type=float, help="seconds that every answer takes")
    parser.add_argument("--faults", default="{}", help="JSON, as for POST /sandbox/faults")
    return parser


def _greet(url: str, users: int) -> None:
    known = f"user-0 to user-{users - 1}" if users else "nobody yet: start it with --users 1000, or add people"
    exports = (f"export {name}={shlex.quote(value)}" for name, value in connections.environment(url).items())
    lines = (
        f"Braze and Heap are at {url}; for Airflow:",
        "",
        *exports,
        "",
        f"Braze knows {known}. As the real one does, it passes over whom it does not know.",
        f"Who is where: {url}/sandbox/state",
    )
    sys.stdout.write("\n".join(lines) + "\n\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
