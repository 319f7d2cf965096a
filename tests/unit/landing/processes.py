"""The receiver as a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.unit.landing.receiving import SECRET, TOKEN

PROJECT = Path(__file__).parents[3]


class Process:
    """``python -m airflow_provider_heapbraze.landing`` on a free port.

    :param wrapper: a command that runs it.
    """

    def __init__(self, path, wrapper=(), **environment):
        self.process = subprocess.Popen(
            [*wrapper, sys.executable, "-m", "airflow_provider_heapbraze.landing"],
            cwd=PROJECT,
            env={
                **os.environ,
                "HEAPBRAZE_LANDING_PATH": str(path),
                "HEAPBRAZE_LANDING_HEAP_SECRETS": SECRET,
                "HEAPBRAZE_LANDING_BRAZE_TOKENS": TOKEN,
                "HEAPBRAZE_LANDING_PORT": "0",
                **environment,
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = ""

    def __enter__(self):
        for line in self.process.stderr:
            self.said += line
            found = re.search(r"Listening on [^ ]+:(\d+)$", line)
            if found:
                self.port = int(found[1])
                return self
        raise AssertionError(self.said)

    def __exit__(self, *_):
        self.process.kill()
        self.said += self.process.communicate()[1]
