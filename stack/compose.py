"""The services of docker-compose.yaml, as they run on this machine without Docker.

Commands, environment and health checks are the file's own. What differs is said here: the folders of the
containers are folders of this machine, and what an image does before its command is done by hand.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?:(:[-?])([^}]*))?\})")
AIRFLOW_HOME = "/opt/airflow"
COMPLETED = "service_completed_successfully"


@dataclass(frozen=True)
class Service:
    """One service of the file.

    :param command: its arguments.
    :param environment: its variables, without this machine's.
    :param health: arguments of its health check; none where it has none.
    :param needs: what must be up before, and whether it must have ended: by the services' names.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    health: list[str]
    needs: dict[str, str]


def services(file: Path, variables: dict[str, str], home: Path) -> dict[str, Service]:
    """Read the services that have a command.

    :param variables: what Docker would read from ``.env``.
    :param home: folder of this machine that stands for the containers' folders and volumes.
    :raises SystemExit: a variable is missing.
    """
    content = json.loads(as_json(file, variables))
    found = {name: about for name, about in content["services"].items() if "command" in about}
    return {name: _service(name, about, file.parent, home) for name, about in found.items()}


def as_json(file: Path, variables: dict[str, str]) -> str:
    """Read a file, with its variables in it.

    :raises SystemExit: a variable is missing.
    """
    return json.dumps(_interpolated(yaml.safe_load(file.read_text()), variables))


def variables_of(file: Path) -> dict[str, str]:
    """Read a file such as ``.env.example``."""
    lines = (line for line in file.read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def _interpolated(value: Any, variables: dict[str, str]) -> Any:
    """Put variables into the texts of a file, as Docker does: once it is read."""
    if isinstance(value, dict):
        return {key: _interpolated(one, variables) for key, one in value.items()}
    if isinstance(value, list):
        return [_interpolated(one, variables) for one in value]
    if not isinstance(value, str):
        return value

    def of(match: re.Match[str]) -> str:
        name, how, rest = match.groups()
        if name is None:
            return "$"
        if variables.get(name):
            return variables[name]
        if how == ":-":
            return rest
        raise SystemExit(f"{name} is not set: {rest or 'docker-compose.yaml needs it'}")

    return VARIABLE.sub(of, value)


def _service(name: str, about: dict[str, Any], project: Path, home: Path) -> Service:
    folders = _folders(about.get("volumes") or [], project, home)

    def here(text: str) -> str:
        for target, folder in folders:
            text = text.replace(target, str(folder))
        return text

    needs = about.get("depends_on") or {}
    return Service(
        name=name,
        command=[here(part) for part in about["command"]],
        environment={key: here(str(value)) for key, value in (about.get("environment") or {}).items()},
        health=_arguments(about.get("healthcheck", {}).get("test", [])),
        needs={other: condition["condition"] for other, condition in needs.items()} if needs else {},
    )


def _folders(volumes: list[str], project: Path, home: Path) -> list[tuple[str, Path]]:
    """Return which folder of this machine stands for which of the container; the longest names first."""
    found = [(AIRFLOW_HOME, home / "airflow")]
    for volume in volumes:
        source, target = volume.split(":")[:2]
        found.append((target, project / source if source.startswith(".") else home / "volumes" / source))
    return sorted(found, key=lambda pair: len(pair[0]), reverse=True)


def _arguments(test: list[str]) -> list[str]:
    return ["sh", "-c", test[1]] if test[:1] == ["CMD-SHELL"] else test[1:]
