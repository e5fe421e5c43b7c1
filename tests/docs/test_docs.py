"""Documents say what is: commands, abilities, targets, links, decisions; and no trace of the machine they were written on.

Not here: configuration keys and defaults (tests.config.test_documents), prose.
"""

import re
import subprocess
import tempfile
import tomllib
from pathlib import Path
from urllib.parse import unquote

import pytest

from bridge.gateway import Ability
from bridge.gateways.livekit.gateway import LivekitGateway
from bridge.gateways.matrix import commands as matrix_commands
from bridge.gateways.matrix.door import MatrixGateway
from bridge.gateways.web.gateway import WebGateway
from bridge.gateways.xmpp import commands as xmpp_commands
from bridge.gateways.xmpp.gateway import XmppGateway

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
GATEWAYS = (MatrixGateway, LivekitGateway, XmppGateway, WebGateway)
MAX_README_LINES = 60  # one screen


def tracked() -> list[Path]:
    """Every file that is ours, committed or about to be."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    return [ROOT / line for line in done.stdout.splitlines() if (ROOT / line).is_file()]


DOCUMENTS = [path for path in tracked() if path.suffix == ".md"]


def commands_in(text: str) -> set[str]:
    """Names in the table of commands."""
    rows = [line for line in text.splitlines() if line.startswith("| `!conf")]
    return {name for row in rows for name in re.findall(r"`!conf ([a-z-]+)", row)}


def test_every_command_of_matrix_is_told() -> None:
    told = (ROOT / "docs/gateways/matrix.md").read_text()
    assert commands_in(told) == set(matrix_commands.VERBS)


def test_every_command_of_xmpp_is_told() -> None:
    told = (ROOT / "docs/gateways/xmpp.md").read_text()
    assert commands_in(told) == set(xmpp_commands.TABLE)


def test_the_changelog_lists_every_command() -> None:
    told = (ROOT / "CHANGELOG.md").read_text()
    listed = told[told.index("`!conf` commands") :].split("\n- ")[0]
    for name in set(matrix_commands.VERBS) | set(xmpp_commands.TABLE):
        assert re.search(rf"\b{name}\b", listed), name


def test_the_readme_tells_how_to_find_the_commands() -> None:
    assert "`!conf help`" in README


def rows() -> dict[str, list[str]]:
    """Gateway -> cells of its row in the README."""
    found = {}
    for line in README.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if link := re.match(r"\[(\w+)\]\(docs/gateways/\w+\.md\)$", cells[0]):
            found[link.group(1)] = cells
    return found


@pytest.mark.parametrize("gateway", GATEWAYS, ids=lambda gateway: gateway.name)
def test_the_readme_says_what_a_gateway_can_do(gateway: type[WebGateway]) -> None:
    told = {word.strip() for word in rows()[gateway.name][2].split(",")}
    assert told == {ability.value for ability in gateway.abilities}
    assert told <= {ability.value for ability in Ability}


def test_every_gateway_has_a_row_and_a_document() -> None:
    folders = {path.parent.name for path in (ROOT / "bridge/gateways").glob("*/__init__.py")}
    assert folders == {gateway.name for gateway in GATEWAYS} == set(rows())
    assert folders == {path.stem for path in (ROOT / "docs/gateways").glob("*.md")}


def test_the_readme_is_one_screen_with_a_picture() -> None:
    assert len(README.splitlines()) <= MAX_README_LINES
    assert "](docs/picture.svg)" in README


def test_every_target_has_a_line_of_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"(?m)^\.PHONY: (.+)$", makefile)
    assert phony is not None
    targets = set(phony.group(1).split())
    listed = subprocess.run(
        ["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20
    ).stdout
    helped = {line.split()[0]: line.split(maxsplit=1)[1] for line in listed.splitlines()}
    assert set(helped) == targets
    assert all(len(words) > 8 for words in helped.values())
    for name in re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)\b", " ".join(_code_spans())):
        assert name in targets, f"make {name}"


def _code_spans() -> list[str]:
    spans = []
    for document in DOCUMENTS:
        spans += re.findall(r"`([^`\n]+)`", document.read_text())
    return [*spans, *re.findall(r"(?m)^make .+$", README)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / unquote(path)).resolve() if path else document
        assert file.exists(), target
        if anchor:
            heads = re.findall(r"(?m)^#+ (.+)$", file.read_text())
            slugs = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in slugs, target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_exist(document: Path) -> None:
    """`bridge/...`, `tests/...` in code spans."""
    for span in re.findall(r"`([^`\n]+)`", document.read_text()):
        if re.fullmatch(r"(bridge|sfu|engine|tests|docs|demo|web|migrations)/[\w./-]+", span):
            built = ("engine/target", "web/node_modules", "bridge/gateways/web/static")
            assert span.startswith(built) or (ROOT / span).exists(), span


def test_the_changelog_has_a_place_for_what_is_next() -> None:
    told = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"(?m)^## Unreleased$", told)


def test_decisions_are_numbered_without_holes() -> None:
    names = sorted(path.name for path in (ROOT / "docs/decisions").glob("*.md"))
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    assert len(names) >= 6
    for name in names:
        lines = (ROOT / "docs/decisions" / name).read_text().splitlines()
        assert lines[0].startswith(f"# {name[:4]} "), name
        assert re.match(r"\d{4}-\d\d-\d\d, ", lines[1]), f"{name}: a date in its second line"


def test_the_architecture_names_every_package() -> None:
    told = (ROOT / "docs/architecture.md").read_text()
    for folder in ("conference", "focus", "gateways", "store", "media", "app"):
        assert re.search(rf"\b{folder}/", told), folder


def test_every_dependency_is_in_the_list_of_licences() -> None:
    told = (ROOT / "THIRD-PARTY.md").read_text().lower()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"]:
        name = requirement.partition("==")[0]
        assert re.search(rf"\b{re.escape(name)}\b", told), name


def test_no_trace_of_the_machine() -> None:
    """No folder of the computer this runs on, and no lock file that says where to download from."""
    folders = {str(ROOT) + "/", str(ROOT.parent) + "/", str(Path.home()) + "/"} - {"/", "//"}
    if str(ROOT.parent) == tempfile.gettempdir():
        folders.discard(str(ROOT.parent) + "/")  # a clone there; tests may name temporary files
    found = []
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        is_lock = path.name in ("package-lock.json", "requirements.lock")
        for number, line in enumerate(text.splitlines(), 1):
            names_folder = any(
                re.search(rf"(?<![\w.]){re.escape(folder)}", line) for folder in folders
            )
            if names_folder or (is_lock and '"resolved"' in line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert found == []


def test_every_attack_on_media_has_a_test_that_exists() -> None:
    rows = re.findall(r"^\| S(\d+) \|.*\| (.*) \|$", (ROOT / "docs/security.md").read_text(), re.M)
    assert [int(number) for number, _ in rows] == list(range(1, 16))
    for number, tests in rows:
        named = re.findall(r"`([^`]+)`", tests)
        assert any(f"test_s{int(number):02}" in path for path in named)
        assert all((ROOT / path).exists() for path in named)
