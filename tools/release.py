"""Try a release as its users get it: ``make release``.

The wheel is built, looked into, and installed beside an Airflow that has nothing else; the demo runs from
it. What is released is then in ``dist``, with the licenses of everything that came along.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from zipfile import ZipFile

PROJECT = Path(__file__).resolve().parents[1]
DIST = PROJECT / "dist"
CONSTRAINTS = PROJECT / "constraints" / "airflow-3.3.txt"
# A home, a checkout or a temporary folder; an address that is not loopback; an index of packages.
PRIVATE = re.compile(
    rb"/(?:home|root|Users|tmp|work)/[\w.-]+|\b(?!127\.|0\.0\.0\.0)(?:\d{1,3}\.){3}\d{1,3}\b|[\w.-]+/simple/"
)
# Their terms would reach the code of those who install the package; the LGPL's do not.
COPYLEFT = re.compile(r"(?<!Lesser )General Public License|Affero|(?<![A-Z])A?GPL", re.IGNORECASE)


def main() -> int:
    """Build and try; return 1 where something is not as it must be."""
    wheel = _build()
    faults = _private_things(wheel)
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        python = _install(wheel, Path(folder) / "venv")
        faults += _licenses(python)
        _demo(python, Path(folder) / "elsewhere")
    for fault in faults:
        print(f"  {fault}", file=sys.stderr)
    print(f"\n{'Not to be released' if faults else 'Ready'}: {wheel.name}, in {DIST.name}/")
    return bool(faults)


def _build() -> Path:
    print("Building ...", flush=True)
    shutil.rmtree(DIST, ignore_errors=True)
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", DIST, PROJECT, quiet=True)
    (wheel,) = DIST.glob("*.whl")
    return wheel


def _private_things(wheel: Path) -> list[str]:
    """Return what the wheel tells of the machine that it was built on, or of a network."""
    found = []
    with ZipFile(wheel) as archive:
        for name in archive.namelist():
            found += [f"{name}: {text.decode()}" for text in PRIVATE.findall(archive.read(name))]
    return found


def _install(wheel: Path, environment: Path) -> str:
    """Install Airflow, and then the wheel, as Airflow's documentation says: its version is named with it."""
    airflow = next(
        line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("apache-airflow==")
    )
    print(f"Installing {airflow}, then the wheel ...", flush=True)
    venv.create(environment, with_pip=True)
    python = str(environment / "bin" / "python")
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
    _run(*pip, "install", "--constraint", CONSTRAINTS, airflow)
    _run(*pip, "install", airflow, wheel)
    _run(*pip, "check")
    return python


def _licenses(python: str) -> list[str]:
    """List the licenses of all that is installed in the environment; return those that would bind users."""
    packages = json.loads(_run(sys.executable, "-m", "piplicenses", f"--python={python}", "--format=json"))
    rows = "".join(f"| {each['Name']} | {each['Version']} | {each['License']} |\n" for each in packages)
    (DIST / "licenses.md").write_text(f"| package | version | license |\n|---|---|---|\n{rows}")
    print(f"Licenses of {len(packages)} packages: {DIST.name}/licenses.md", flush=True)
    return [f"{each['Name']}: {each['License']}" for each in packages if _binds(each["License"])]


def _binds(license_: str) -> bool:
    """Tell whether there is no choice but a copyleft license."""
    return all(COPYLEFT.search(choice) for choice in license_.split(";"))


def _demo(python: str, folder: Path) -> None:
    """Run the demo where there is no source of the package, only what is installed."""
    print("The demo, from the wheel:", flush=True)
    for name in ("demo", "dags"):
        shutil.copytree(PROJECT / name, folder / name)
    subprocess.run(
        [python, folder / "demo" / "nights.py"],
        check=True,
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}},
    )


def _run(*command: str | Path, quiet: bool = False) -> str:
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL if quiet else None, text=True
    ).stdout


if __name__ == "__main__":
    sys.exit(main())
