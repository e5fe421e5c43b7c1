"""The part of the import law that import-linter cannot see: it knows no compiled modules."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


def test_the_control_plane_never_loads_the_engine() -> None:
    files = list((ROOT / "bridge").rglob("*.py"))
    assert len(files) > 50
    assert [file for file in files if "sfu._engine" in imported(file)] == []


def test_importing_sfu_alone_imports_nothing() -> None:
    assert imported(ROOT / "sfu/__init__.py") == set()
