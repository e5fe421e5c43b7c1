"""docker-compose.yml as typed values: the keys we use, of the types the Compose specification gives them.

A key that is not here is a mistake or a reason to add it. Interpolation as in the specification: `${X}`, `${X:-default}`,
`${X:?message}`.
Not here: running anything.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.yml"
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)(?::([-?])([^}]*))?\}")
Duration = Annotated[str, Field(pattern=r"^(\d+(ms|s|m|h))+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Healthcheck(_Strict):
    test: list[str] | None = None
    interval: Duration | None = None
    timeout: Duration | None = None
    retries: int | None = None
    disable: bool = False


class Dependency(_Strict):
    condition: Literal["service_started", "service_healthy", "service_completed_successfully"]


class Attachment(_Strict):
    aliases: list[str] = []


class Service(_Strict):
    """What a service may say here. `privileged`, `cap_add`, `devices` and `pid` are absent on purpose."""

    image: str
    build: str | None = None
    profiles: list[str] = []
    entrypoint: list[str] | None = None
    command: list[str] | None = None
    init: bool = False
    environment: dict[str, str] = {}
    volumes: list[str] = []
    ports: list[str] = []
    networks: dict[str, Attachment] = {}
    network_mode: str | None = None
    depends_on: dict[str, Dependency] = {}
    healthcheck: Healthcheck | None = None
    restart: Literal["no", "always", "on-failure", "unless-stopped"] = "no"
    stop_grace_period: Duration | None = None
    read_only: bool = False
    tmpfs: list[str] = []
    security_opt: list[str] = []
    cap_drop: list[str] = []


class Subnet(_Strict):
    subnet: str


class Ipam(_Strict):
    config: list[Subnet]


class Network(_Strict):
    ipam: Ipam


class Compose(_Strict):
    name: str
    services: dict[str, Service]
    networks: dict[str, Network] = {}
    volumes: dict[str, None] = {}


def interpolated(text: str, environment: Mapping[str, str]) -> str:
    """Raises KeyError for a variable that must be set."""

    def value(match: re.Match[str]) -> str:
        name, how, word = match.groups()
        found = environment.get(name, "")
        if found or how is None:
            return found
        if how == "?":
            raise KeyError(f"{name}: {word}")
        return str(word)

    return _VARIABLE.sub(value, text)


def variables(text: str) -> dict[str, bool]:
    """Name -> whether it must be set."""
    found: dict[str, bool] = {}
    for name, how, _ in _VARIABLE.findall(text):
        found[name] = found.get(name, False) or how == "?"
    return found


def load(environment: Mapping[str, str]) -> Compose:
    tree: dict[str, Any] = yaml.safe_load(interpolated(FILE.read_text(), environment))
    return Compose.model_validate({k: v for k, v in tree.items() if not k.startswith("x-")})
