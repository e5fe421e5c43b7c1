"""What goes into the image: the build context by .dockerignore, the Dockerfile's sources, the wheel's files.

Nothing of Element Call (AGPL), no tests, no Rust source may reach a deployment (decision 0006).
Not here: docker-compose.yml (test_compose).
"""

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]
STATIC = "bridge/gateways/web/static"


def rules() -> list[tuple[bool, str]]:
    """(admits, pattern) in order; the last that matches decides."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return [(line.startswith("!"), line.lstrip("!").strip("/")) for line in kept]


def is_admitted(path: str) -> bool:
    """A pattern matches a path or any folder above it; `**/` stands for any depth."""
    answer = True
    above = [str(p) for p in PurePosixPath(path).parents if str(p) != "."]
    for admits, pattern in rules():
        names = [path, *above]
        plain = pattern.removeprefix("**/")
        if any(
            (fnmatch.fnmatchcase(name, pattern) and name.count("/") == pattern.count("/"))
            or (plain != pattern and fnmatch.fnmatchcase(name.rpartition("/")[2], plain))
            for name in names
        ):
            answer = admits
    return answer


def tracked() -> list[str]:
    """Every file that is ours, committed or about to be."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    return done.stdout.splitlines()


def copies() -> list[tuple[list[str], str]]:
    """Sources and target of every COPY from the build context."""
    found = []
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        words = line.split()
        if words[:1] == ["COPY"] and not words[1].startswith("--from"):
            found.append((words[1:-1], words[-1]))
    return found


@pytest.mark.parametrize(
    "path",
    [
        "tests/peers/web/node_modules/@element-hq/element-call-embedded/dist/index.html",
        "tests/peers/native.py",
        "demo/check.py",
        "web/node_modules/vite/package.json",
        "engine/target/release/libparley_core.rlib",
        f"{STATIC}/index.html",
        "sfu/_engine.abi3.so",
        "bridge/__pycache__/app.cpython-311.pyc",
        "config.yaml",
        ".env",
        ".git/config",
        "parley.db",
    ],
)
def test_kept_out_of_the_build_context(path: str) -> None:
    assert not is_admitted(path)


def test_the_context_is_sources_only() -> None:
    admitted = {path for path in tracked() if is_admitted(path)}
    tops = {path.partition("/")[0] for path in admitted}
    files = {"pyproject.toml", "README.md", "LICENSE", "THIRD-PARTY.md"}
    assert tops == files | {"engine", "bridge", "sfu", "migrations", "web"}
    assert [p for p in admitted if "element" in p.lower() and "call" in p.lower()] == []


def test_what_the_dockerfile_copies_is_there() -> None:
    admitted = [path for path in tracked() if is_admitted(path)]
    sources = [source for found, _ in copies() for source in found]
    assert len(sources) > 8
    for source in sources:
        assert any(p == source or p.startswith(f"{source}/") for p in admitted), source


def test_every_crate_of_the_workspace_is_in_the_context() -> None:
    """Cargo refuses a workspace with a missing member."""
    workspace = tomllib.loads((ROOT / "engine/Cargo.toml").read_text())["workspace"]
    for member in workspace["members"]:
        assert is_admitted(f"engine/{member}/Cargo.toml"), member


def test_the_image_runs_as_nobody_special_and_builds_with_the_pinned_tools() -> None:
    text = (ROOT / "Dockerfile").read_text()
    last_stage = text[text.rindex("\nFROM ") :]
    assert re.search(r"(?m)^USER parley$", last_stage)
    assert "install -d -o parley -m 0700 /var/lib/parley /run/parley" in last_stage
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert all(tool in text for tool in build)
    assert "apt-get" not in last_stage
    assert "element" not in text.lower()


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_wheel_has_what_runs_and_nothing_else(tmp_path: Path) -> None:
    """The Dockerfile's second stage, from the same files."""
    if shutil.which("cargo") is None:
        pytest.skip("no Rust: the wheel cannot be built")
    source = tmp_path / "src"
    for path in tracked():
        wanted = any(
            path == name or path.startswith(f"{name}/")
            for names, target in copies()
            for name in names
            if target != "web/"
        )
        if wanted and is_admitted(path) and (ROOT / path).exists():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, source / path)
    assert (ROOT / STATIC / "index.html").exists(), "the page is not built: make setup"
    shutil.copytree(ROOT / STATIC, source / STATIC)
    subprocess.run(
        [sys.executable, "-m", "maturin", "build", "--release", "--out", str(tmp_path)],
        cwd=source,
        # One target folder for all: the crates that others made are built already.
        env=os.environ | {"CARGO_TARGET_DIR": str(ROOT / "engine/target")},
        check=True,
        timeout=800,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("parley-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "bridge",
        "sfu",
        "migrations",
    }
    assert f"{STATIC}/index.html" in names
    assert any(re.fullmatch(rf"{STATIC}/assets/index-[\w-]+\.js", name) for name in names)
    assert any(re.fullmatch(r"sfu/_engine[\w.-]*\.so", name) for name in names)
    assert "sfu/_engine.pyi" in names
    assert any(re.fullmatch(r"migrations/versions/\w+\.py", name) for name in names)
    assert "migrations/env.py" in names
    unwanted = re.compile(r"\.rs$|\.toml$|(^|/)tests?/|element-?call|\.ts$|node_modules", re.I)
    assert [name for name in names if unwanted.search(name)] == []
