"""The command without its script: ``python -m airflow_provider_heapbraze ledger check <uri>``."""

from __future__ import annotations

import sys

from airflow_provider_heapbraze.cli import main

sys.exit(main())
