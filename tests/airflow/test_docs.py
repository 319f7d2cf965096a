"""The Python that the documentation shows: it runs as it stands there."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from textwrap import dedent

import pytest
from airflow.sdk import DAG

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SANDBOX = "http://127.0.0.1:8765"


def code_of(page):
    return [dedent(block) for _, block in BLOCK.findall(page.read_text())]


PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if code_of(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_it_runs(page, heapbraze_sandbox):
    shown = {}
    with ExitStack() as stack, DAG("docs"):
        for block in code_of(page):
            code = compile(block.replace(SANDBOX, heapbraze_sandbox.url), page.name, "exec")
            exec(code, shown)  # noqa: S102 - our own documentation
        if "sandbox" in shown:
            stack.callback(shown["sandbox"].close)
