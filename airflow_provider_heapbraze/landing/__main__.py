"""Start the receiver: ``python -m airflow_provider_heapbraze.landing``."""

from __future__ import annotations

import logging
import os
import sys

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.landing.notes import log
from airflow_provider_heapbraze.landing.server import check_path, listen, make_server
from airflow_provider_heapbraze.landing.settings import Settings


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        settings = Settings.from_environment(os.environ)
        check_path(settings)
        sock = listen(settings)
    except ConfigurationError as error:
        sys.exit(str(error))
    server = make_server(settings)
    log.info("Listening on %s:%s", *sock.getsockname()[:2])
    server.run(sockets=[sock])


if __name__ == "__main__":
    main()
