"""Configuration and its two documents agree, key by key and default by default."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge.config import load_config
from tests.config.keys import REQUIRED, keys

ROOT = Path(__file__).resolve().parents[2]
KEYS = dict(keys())
# Switched-off sections; in the example their keys stand in `#`.
OPTIONAL = {"http.tls", "sfu.socket", "turn", "matrix", "xmpp", "xmpp.ca", "web", "conferences"}


def example(*, everything: bool) -> str:
    text = (ROOT / "config.example.yaml").read_text()
    # "#key:" and "#  key:" are settings that are off; "# Word" is prose.
    return re.sub(r"(?m)^#(?! \S)", "", text) if everything else text


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Dotted keys of a YAML tree; lists of mappings without an index."""
    found: dict[str, Any] = {}
    for key, below in value.items():
        name = f"{path}{key}"
        items = below if isinstance(below, list) else [below]
        if name == "matrix.federation_overrides" or not any(isinstance(x, dict) for x in items):
            found[name] = below
            continue
        if name in KEYS:
            found[name] = below
        for item in items:
            found |= flat(item, f"{name}.")
    return found


def test_the_example_has_every_key_and_no_other() -> None:
    assert set(flat(yaml.safe_load(example(everything=True)))) == set(KEYS)


def test_the_example_shows_the_defaults() -> None:
    shown = flat(yaml.safe_load(example(everything=True)))
    for key, value in KEYS.items():
        if value is REQUIRED or key in OPTIONAL or key == "livekit.keys":
            continue
        if key.startswith("conferences."):
            continue  # an example of one conference
        plain = list(value) if isinstance(value, tuple) else value
        assert shown[key] == (str(plain) if isinstance(plain, Path) else plain), key


def test_what_is_off_in_the_example_is_optional() -> None:
    active = set(flat(yaml.safe_load(example(everything=False))))
    for key in set(KEYS) - active:
        assert any(key == name or key.startswith(f"{name}.") for name in OPTIONAL), key


@pytest.mark.parametrize("everything", [False, True])
def test_the_example_works_once_the_secrets_are_filled_in(tmp_path: Path, everything: bool) -> None:
    file = tmp_path / "config.yaml"
    text = example(everything=everything)
    for index in range(text.count('ret: ""') + text.count('token: ""')):
        text = re.sub(r'(secret|token): ""', rf"\1: {index:032}secret", text, count=1)
    file.write_text(text)
    config = load_config(file, {})
    assert (config.matrix is not None) == everything


def test_running_md_explains_every_key_and_default() -> None:
    rows = re.findall(
        r"(?m)^\| `([a-z_.]+)` \| (.+?) \| (.+?) \|$", (ROOT / "docs/running.md").read_text()
    )
    assert [key for key, _, _ in rows] == list(KEYS)
    for key, default, meaning in rows:
        assert default == spelled(KEYS[key]), key
        assert len(meaning) > 5, key


def spelled(value: Any) -> str:
    if value is REQUIRED:
        return "required"
    if value is None:
        return "absent"
    if isinstance(value, bool):
        return str(value).lower()
    if value == "":
        return "empty"
    if isinstance(value, tuple):
        return "`[" + ", ".join('"*"' if item == "*" else item for item in value) + "]`"
    return f'`"{value}"`' if str(value).startswith(" ") else f"`{value}`"
