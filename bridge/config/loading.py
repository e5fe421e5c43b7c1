"""From a YAML file and the environment to a checked configuration.

`PARLEY__SECTION__KEY` overrides the file. No message repeats a value that may be a secret.
Not here: the shape (`models`), the rules (`rules`).
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args, get_origin

import yaml
from pydantic import ValidationError

from bridge.conference.errors import Refused
from bridge.config.models import Config, Section
from bridge.config.rules import problems

_ENV: Final = "PARLEY__"


class Misconfigured(Refused):
    """The configuration cannot be used. `problems`: one sentence each, naming the key and the fix."""

    code = "misconfigured"

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load_config(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """The file under the environment, checked. Raises `Misconfigured`."""
    raw = _read(path)
    for name, value in sorted((os.environ if environ is None else environ).items()):
        if name.startswith(_ENV):
            _override(raw, name, value)
    try:
        config = Config.model_validate(raw)
    except ValidationError as why:
        raise Misconfigured(tuple(map(_explain, why.errors(include_url=False)))) from None
    found = tuple(problems(config))
    if found:
        raise Misconfigured(found)
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as why:
        reason = why.strerror if isinstance(why, OSError) else "not UTF-8 text"
        raise Misconfigured(
            (f"{path}: cannot be read ({reason}): start from config.example.yaml",)
        ) from None
    except yaml.YAMLError as why:
        mark = getattr(why, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        # Not the library's text: it quotes the line, and the line may hold a secret.
        raise Misconfigured((f"{where}: not YAML: check indentation, quotes and colons",)) from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise Misconfigured((f"{path}: must be a mapping of sections, as in config.example.yaml",))
    return raw


def _override(raw: dict[str, Any], name: str, value: str) -> None:
    """Put one environment variable into the tree."""
    keys = name.removeprefix(_ENV).lower().split("__")
    here = raw
    model: type[Section] = Config
    for key in keys[:-1]:
        below = _section(model, key)
        if below is None:
            raise Misconfigured((f"{name}: {_unknown(model, key)}",))
        if here.get(key) is None:
            here[key] = {}
        here, model = here[key], below
        if not isinstance(here, dict):
            return  # the file's value is wrong; the model says so
    field = model.model_fields.get(keys[-1])
    if field is None:
        raise Misconfigured((f"{name}: {_unknown(model, keys[-1])}",))
    # Lists and mappings as YAML; anything else as it stands, or a secret of digits would become a number.
    if get_origin(field.annotation) in (tuple, dict):
        try:
            here[keys[-1]] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise Misconfigured((f"{name}: not YAML: write it like [a, b]",)) from None
    else:
        here[keys[-1]] = value


def _section(model: type[Section], key: str) -> type[Section] | None:
    """The model of a sub-section, `X` or `X | None`."""
    field = model.model_fields.get(key)
    if field is None:
        return None
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


def _unknown(model: type[Section], key: str) -> str:
    near = difflib.get_close_matches(key, model.model_fields, n=1)
    return "unknown key: " + (f"did you mean `{near[0]}`?" if near else "remove it")


def _explain(error: Any) -> str:
    """One of pydantic's findings as key, fault and fix, without the value (it may be a secret)."""
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        model: type[Section] = Config
        for part in error["loc"][:-1]:
            model = _section(model, str(part)) or model if isinstance(part, str) else model
        return f"{key}: {_unknown(model, str(error['loc'][-1]))}"
    if error["type"] == "missing":
        return f"{key}: is missing: add it (docs/running.md says what it is)"
    message = error["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]}: correct it"
