"""What users install is what is built: the wheel is built and looked into."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from airflow_provider_heapbraze import __version__

ROOT = Path(__file__).parents[2]
DIST_INFO = f"airflow_provider_heapbraze-{__version__}.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", target, ROOT],
        check=True,
        capture_output=True,
    )
    (built,) = target.iterdir()
    with ZipFile(built) as archive:
        yield archive


def test_it_holds_the_package_and_nothing_beside(wheel):
    names = wheel.namelist()
    assert {name.split("/")[0] for name in names} == {"airflow_provider_heapbraze", DIST_INFO}
    packaged = {name for name in names if name.endswith(".py")}
    package = ROOT / "airflow_provider_heapbraze"
    assert packaged == {str(path.relative_to(ROOT)) for path in package.rglob("*.py")}


def test_type_checkers_see_the_types(wheel):
    assert "airflow_provider_heapbraze/py.typed" in wheel.namelist()


def test_it_holds_the_license(wheel):
    assert wheel.read(f"{DIST_INFO}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()


def test_airflow_finds_the_entry_points(wheel):
    entry_points = wheel.read(f"{DIST_INFO}/entry_points.txt").decode()
    assert entry_points.split() == [
        "[console_scripts]",
        "heapbraze",
        "=",
        "airflow_provider_heapbraze.cli:main",
        "[airflow.plugins]",
        "heapbraze",
        "=",
        "airflow_provider_heapbraze.plugin:HeapBrazePlugin",
        "[apache_airflow_provider]",
        "provider_info",
        "=",
        "airflow_provider_heapbraze.get_provider_info:get_provider_info",
    ]
