"""The documentation: it builds, its links lead somewhere, and it tells of all that the package can say."""

from __future__ import annotations

import ast
import dataclasses
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from airflow_provider_heapbraze.clients.braze_account import INSTANCE_HOSTS
from airflow_provider_heapbraze.events.mapping import REASONS
from airflow_provider_heapbraze.get_provider_info import get_provider_info
from airflow_provider_heapbraze.landing import answers, settings
from airflow_provider_heapbraze.members import Guards

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "airflow_provider_heapbraze"
PAGES = sorted(DOCS.rglob("*.md"))
AT_THE_ROOT = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
SITE = "https://docs.invalid/"

pytestmark = pytest.mark.xdist_group("docs")  # the site is built once


class Page(HTMLParser):
    """What a page refers to: its own anchors, links that a reader may follow, and what a browser loads."""

    def __init__(self, html):
        super().__init__()
        self.anchors, self.links, self.loaded = set(), set(), set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors.add(given.get("id"))
        if tag == "a":
            self.links.add(given.get("href"))
        elif tag == "link" and given.get("rel") not in {"canonical", "next", "prev"}:
            self.loaded.add(given.get("href"))
        self.loaded.update(given.get(name) for name in ("src", "srcset", "data", "poster"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    project = tmp_path_factory.mktemp("docs")
    for name in ("docs", "tools"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("mkdocs.yml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, project)
    (project / PACKAGE.name).symlink_to(PACKAGE)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "griffe" not in done.stdout + done.stderr  # a docstring that does not fit its code
    return project / "site"


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path.read_text()) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}


def address(site, path):
    return urljoin(SITE, path.relative_to(site).as_posix().removesuffix("index.html"))


def test_every_page_is_in_the_navigation(pages):
    named = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(path.relative_to(DOCS).as_posix() for path in PAGES)
    assert len(pages) == len(named)


def test_every_link_leads_somewhere(site, pages):
    anchors = {address(site, path): {*page.anchors, ""} for path, page in pages.items()}

    def leads_somewhere(target):
        page = target._replace(fragment="").geturl()
        if page in anchors:
            return unquote(target.fragment) in anchors[page]
        return not page.startswith(SITE) or (site / target.path[1:]).is_file()

    links = [(path, link) for path, page in pages.items() for link in page.links if link]
    assert len(links) > 500
    assert [
        f"{path.relative_to(site)}: {link}"
        for path, link in links
        if not leads_somewhere(urlsplit(urljoin(address(site, path), link)))
    ] == []


def test_nothing_is_loaded_from_elsewhere(site, pages):
    loaded = {urljoin(address(site, path), it) for path, page in pages.items() for it in page.loaded if it}
    assert [it for it in loaded if not it.startswith((SITE, "data:"))] == []
    for sheet in site.rglob("*.css"):
        assert re.findall(r"@import|url\(\s*[\"']?(?:https?:)?//", sheet.read_text()) == []
    for picture in (site / "images").glob("*.svg"):
        assert "http" not in picture.read_text().replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("path", AT_THE_ROOT, ids=lambda path: path.name)
def test_links_of_the_files_at_the_root_lead_somewhere(path):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []


# The pictures


def test_every_picture_is_shown_in_both_themes():
    shown = set()
    for path in PAGES:
        pictures = re.findall(r"images/([\w-]+)-(light|dark)\.webp#(\S+)\)", path.read_text())
        for name, theme, fragment in pictures:
            assert fragment == f"gh-{theme}-mode-only", name
            shown.add(f"{name}-{theme}.webp")
    assert shown == {path.name for path in (DOCS / "images").glob("*.webp")}
    assert {name.replace("-light", "-dark") for name in shown} == {name for name in shown if "-dark" in name}


def test_pictures_are_small():
    sizes = {path.name: path.stat().st_size for path in (DOCS / "images").iterdir()}
    assert {name for name, size in sizes.items() if size > 160_000} == set()
    assert sum(sizes.values()) < 2_000_000


# The runbook


def errors():
    """Return the names of all errors that a person can meet: those of HeapBrazeError's tree."""
    bases = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {base.id for base in node.bases if isinstance(base, ast.Name)}
    found = {"HeapBrazeError"}
    while more := {name for name in bases if bases[name] & found} - found:
        found |= more
    return found


def headings(page, level):
    return re.findall(rf"^{'#' * level} (\w+)$", (DOCS / page).read_text(), re.MULTILINE)


def test_the_runbook_knows_every_error_and_no_other():
    said = [heading for heading in headings("runbook.md", 3) if heading.endswith("Error")]
    assert sorted(said) == sorted(errors())


def test_the_runbook_knows_every_guard():
    guards = {field.name for field in dataclasses.fields(Guards)}
    assert guards <= set(headings("runbook.md", 3))


def test_anchors_of_the_runbook_are_the_names_in_lower_case(pages, site):
    names = errors() | {field.name for field in dataclasses.fields(Guards)}
    assert {name.lower() for name in names} <= pages[site / "runbook" / "index.html"].anchors


# What the pages say is what the code has


def table(page, columns):
    """Return the rows of a page's tables that have so many columns; code and links as plain text."""
    plain = re.sub(r"\[(`[^`]+`)\]\([^)]*\)", r"\1", (DOCS / page).read_text())
    rows = (line.strip("|").split("|") for line in plain.splitlines() if line.startswith("| "))
    return [[cell.strip().strip("`") for cell in row] for row in rows if len(row) == columns]


def test_guards_are_told_with_their_defaults():
    nothing = "\N{EN DASH}"
    said = {name: default for name, default, _ in table("approval.md", 3)}
    for field in dataclasses.fields(Guards):
        default = nothing if field.default is None else str(field.default).removesuffix(".0")
        assert said[field.name] == default


def test_every_field_of_the_connections_is_told():
    text = (DOCS / "connections.md").read_text()
    for connection in get_provider_info()["connection-types"]:
        for name in connection["conn-fields"]:
            assert f"extra `{name}`" in text


def test_every_extra_that_is_a_limit_is_told():
    read = (PACKAGE / "hooks" / "_clients.py").read_text()
    limits = set(re.findall(r'"(\w+_(?:per|requests)_\w+)"', read))
    assert len(limits) >= 8
    assert limits <= {name for _, name, _ in table("connections.md", 3)}


def test_every_instance_is_told():
    text = (
        (DOCS / "connections.md")
        .read_text()
        .replace("US-01 to US-08", " ".join(f"US-0{n}" for n in range(1, 9)))
    )
    assert [name for name in INSTANCE_HOSTS if name not in text] == []


def test_every_option_of_the_configuration_is_told():
    text = "".join(page.read_text() for page in PAGES)
    for name in get_provider_info()["config"]["heapbraze"]["options"]:
        assert f"AIRFLOW__HEAPBRAZE__{name.upper()}=" in text


def test_every_outcome_of_the_landing_service_is_told():
    given = [value for value in vars(answers).values() if isinstance(value, answers.Answer)]
    given.append(answers.quarantine_full(1, "", "", ""))
    told = {
        name.strip("` "): int(status)
        for names, status, *_ in table("landing.md", 4)
        if status.isdigit()
        for name in names.split(",")
    }
    assert told == {answer.outcome: answer.status for answer in given}


def test_every_variable_of_the_landing_service_is_told():
    text = (DOCS / "landing.md").read_text()
    names = [value for value in vars(settings).values() if str(value).startswith("HEAPBRAZE_LANDING_")]
    assert len(names) >= 6
    assert [name for name in names if f"`{name}`" not in text] == []


def test_every_reason_why_an_event_is_not_sent_is_told():
    told = {row[0] for row in table("jobs/currents.md", 2)}
    assert REASONS.keys() - {"anonymous"} <= told


def test_every_reason_why_a_member_is_unmatched_is_told():
    code = "".join((PACKAGE / "membership" / name).read_text() for name in ("rule.py", "values.py"))
    given = set(re.findall(r"(?:THEN|ELSE) '(\w+)'(?= END| ELSE|\")", code))
    reasons = given - {"external_id", "device_id", "alias", "true", "false"}
    assert len(reasons) >= 6
    assert reasons <= {row[0] for row in table("jobs/cohort.md", 2)}


def test_every_operator_and_sensor_is_in_the_reference():
    reference = "".join(page.read_text() for page in (DOCS / "reference").iterdir())
    info = get_provider_info()
    modules = [name for entry in [*info["operators"], *info["sensors"]] for name in entry["python-modules"]]
    for module in modules:
        source = ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text()
        for name in re.findall(r"^class ([A-Z]\w+)", source, re.MULTILINE):
            assert f"::: {module}.{name}\n" in reference


def test_every_example_dag_is_told_of():
    text = "".join(page.read_text() for page in PAGES)
    assert [path.name for path in (ROOT / "dags").glob("*.py") if path.name not in text] == []
