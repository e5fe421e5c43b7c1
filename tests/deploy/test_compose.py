"""docker-compose.yml without a container engine: the file by its rules, its commands for real on this machine.

Not here: what the image is made of (test_image).
"""

import asyncio
import contextlib
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from livekit import api

from bridge.config import load_config
from tests.deploy.compose import FILE, ROOT, Compose, Service, interpolated, load, variables
from tests.peers import postgres
from tests.peers.browser import Look, hears
from tests.peers.process import PeerProcess

SECRETS = ("PASSWORD", "SECRET")
ENVIRONMENT = {
    "POSTGRES_PASSWORD": "pw0",
    "PARLEY_ADVERTISE": "127.0.0.2",  # loopback, and not the address that is bound
    "PARLEY_DOMAIN": "conf.example.org",
    "TURN_SECRET": "turn-secret",
    "XMPP_DOMAIN": "example.org",
    "XMPP_SECRET": "xmpp-secret",
}
KEY, SECRET = "parley", "a key of more than thirty-two bytes for tests"
ANN, BEN = Look(600, (200, 30, 30)), Look(900, (30, 40, 200))


@pytest.fixture
def compose() -> Compose:
    return load(ENVIRONMENT)


def ours(compose: Compose) -> dict[str, Service]:
    return {name: s for name, s in compose.services.items() if s.build is not None}


def test_everything_named_exists(compose: Compose) -> None:
    for name, service in compose.services.items():
        for other in service.depends_on:
            assert other in compose.services, f"{name} waits for {other}"
            assert set(compose.services[other].profiles) <= set(service.profiles), name
        if service.network_mode and service.network_mode.startswith("service:"):
            assert service.network_mode.removeprefix("service:") in compose.services, name
        for volume in service.volumes:
            source, target, *_ = volume.split(":")
            assert target.startswith("/"), volume
            if source.startswith("./"):
                # The operator's own: configuration and certificates.
                assert source in ("./config.yaml", "./deploy/certs") or (ROOT / source).exists()
            else:
                assert source in compose.volumes, volume
    used = {v.split(":")[0] for s in compose.services.values() for v in s.volumes}
    assert set(compose.volumes) <= used


def test_a_dependency_on_health_has_a_check_to_wait_for(compose: Compose) -> None:
    for service in compose.services.values():
        for other, how in service.depends_on.items():
            check = compose.services[other].healthcheck
            if how.condition == "service_healthy":
                assert check is not None
                assert check.test
            if how.condition == "service_completed_successfully":
                assert compose.services[other].restart == "no"


def test_a_shared_namespace_publishes_and_joins_nothing(compose: Compose) -> None:
    """The engine refuses ports and networks beside network_mode."""
    for name, service in compose.services.items():
        if service.network_mode is not None:
            assert not service.ports, name
            assert not service.networks, name


def test_ours_run_without_privileges(compose: Compose) -> None:
    assert set(ours(compose)) == {"network", "migrate", "parley", "worker"}
    for name, service in ours(compose).items():
        assert service.read_only, name
        assert service.cap_drop == ["ALL"], name
        assert service.security_opt == ["no-new-privileges:true"], name
    assert "privileged" not in FILE.read_text()


def test_images_have_a_version(compose: Compose) -> None:
    for service in compose.services.values():
        assert re.fullmatch(r"[a-z/]+:v?\d[\w.-]*", service.image), service.image


def test_secrets_come_from_the_environment() -> None:
    text = FILE.read_text()
    must = variables(text)
    for line in text.splitlines():
        key, _, value = line.strip().lstrip("- ").partition(":" if ": " in line else "=")
        named = any(word in key.upper() for word in SECRETS) and key != "use-auth-secret"
        if named and not key.startswith("#"):
            assert "${" in value, line
    # Interpolation ignores profiles: what only Prosody needs must not stop everybody else; an empty component
    # secret makes Prosody refuse every component.
    optional = {name for name, is_needed in must.items() if not is_needed}
    assert optional == {"XMPP_C2S", "XMPP_S2S", "XMPP_DOMAIN", "XMPP_SECRET"}
    for name, is_needed in must.items():
        if is_needed:
            with pytest.raises(KeyError, match=name):
                interpolated(text, {k: v for k, v in ENVIRONMENT.items() if k != name})


def test_the_walk_through_names_every_variable() -> None:
    told = (ROOT / "docs/running.md").read_text()
    assert [name for name in variables(FILE.read_text()) if f"`{name}`" not in told] == []


def published(compose: Compose) -> dict[str, str]:
    """Container port -> address and host port."""
    found = {}
    for service in compose.services.values():
        for port in service.ports:
            host, _, inside = port.rpartition(":")
            found[inside] = host
    return found


def test_only_tls_and_media_are_open_to_the_world(compose: Compose) -> None:
    world = {inside for inside, host in published(compose).items() if "127.0.0.1" not in host}
    assert world == {"80", "443"}
    assert "8481" not in published(compose), "the homeserver's listener is nobody else's business"


def test_the_proxys_network_is_the_trusted_one(compose: Compose) -> None:
    trusted = yaml.safe_load(
        compose.services["parley"].environment["PARLEY__HTTP__TRUSTED_PROXIES"]
    )
    subnets = [item.subnet for item in compose.networks["default"].ipam.config]
    assert trusted == subnets
    assert all(ip_network(subnet).is_private for subnet in subnets)


def test_the_component_stays_on_loopback(compose: Compose) -> None:
    """S40: its secret travels in the clear, so parley refuses any other host."""
    assert compose.services["prosody"].network_mode == compose.services["parley"].network_mode
    told = (ROOT / "deploy/prosody.cfg.lua").read_text()
    assert 'component_interfaces = { "127.0.0.1" }' in told
    read = set(re.findall(r"\bENV_(\w+)", told))
    assert read == set(compose.services["prosody"].environment)


def test_names_that_others_use_are_aliases(compose: Compose) -> None:
    holder = compose.services["network"]
    assert holder.networks["default"].aliases == ["parley"]
    command = compose.services["proxy"].command
    assert command is not None
    assert command[-1] == "parley:8480"


def filled_in(folder: Path) -> Path:
    """`cp config.example.yaml config.yaml` and the secrets, as docs/running.md tells; guest page on."""
    tree = yaml.safe_load((ROOT / "config.example.yaml").read_text())
    tree["livekit"]["keys"] = [{"key": KEY, "secret": SECRET}]
    tree["web"] = {"invite_secret": "i" * 40}
    tree["conferences"] = [{"slug": "demo"}]
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def test_the_example_with_this_environment_is_a_safe_configuration(
    compose: Compose, tmp_path: Path
) -> None:
    for name in ("migrate", "parley"):
        config = load_config(filled_in(tmp_path), compose.services[name].environment)
        assert config.http.public.host == config.http.internal.host == "0.0.0.0"
        assert config.http.ops.host == "127.0.0.1"  # where the image's health check asks
        assert config.http.ops.port == 8482
        assert config.http.public_url == "https://conf.example.org"
        assert config.sfu.mode == "external"


def test_worker_and_parley_agree_on_the_socket(compose: Compose) -> None:
    command = compose.services["worker"].command or []
    socket_path = compose.services["parley"].environment["PARLEY__SFU__SOCKET"]
    assert f"--socket={socket_path}" in command
    assert "--advertise=127.0.0.2" in command
    assert "control:/run/parley" in compose.services["worker"].volumes
    assert "control:/run/parley" in compose.services["parley"].volumes


# --- for real -----------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Host:
    """Turns what a service says into a process here: paths and ports replaced, nothing else."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self.public, self.internal, self.ops, self.media = (free_port() for _ in range(4))
        for name in ("state", "control"):
            (folder / name).mkdir()
        filled_in(folder)
        self._moved = {
            "/etc/parley/config.yaml": str(folder / "config.yaml"),
            "/var/lib/parley": str(folder / "state"),
            "/run/parley": str(folder / "control"),
            "postgresql+asyncpg://parley:pw0@postgres/parley": database,
            "--port=8470": f"--port={self.media}",
        }

    def here(self, text: str) -> str:
        for theirs, mine in self._moved.items():
            text = text.replace(theirs, mine)
        return text

    async def start(self, service: Service) -> asyncio.subprocess.Process:
        entry = service.entrypoint or ["parley"]
        command = service.command or ["run", "-c", "/etc/parley/config.yaml"]  # the image's CMD
        programs = {"parley": [sys.executable, "-m", "bridge"], "python": [sys.executable]}
        words = [*programs[entry[0]], *entry[1:], *(self.here(word) for word in command)]
        environment = {name: self.here(value) for name, value in service.environment.items()}
        ports = {
            "PARLEY__HTTP__PUBLIC__PORT": str(self.public),
            "PARLEY__HTTP__INTERNAL__PORT": str(self.internal),
            "PARLEY__HTTP__OPS__PORT": str(self.ops),
        }
        path = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        with (self.folder / "log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *words,
                cwd=self.folder,
                env=path | ports | environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-4_000:]

    @contextlib.asynccontextmanager
    async def running(self, service: Service) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await self.start(service)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), 20)
                except TimeoutError:
                    process.kill()
                    await process.wait()


async def within(wait_s: float, look: Callable[[], Awaitable[bool]], what: str) -> None:
    began = time.monotonic()
    while time.monotonic() - began < wait_s:
        if await look():
            return
        await asyncio.sleep(0.2)
    raise AssertionError(f"{what}: not within {wait_s:.0f} s")


@pytest.fixture
def database() -> Iterator[str]:
    if postgres.find() is None:
        pytest.skip("no PostgreSQL: apt install postgresql")
    with (
        tempfile.TemporaryDirectory(prefix="parley-pg-") as folder,
        postgres.server(Path(folder)) as url,
    ):
        yield url


def health_command() -> list[str]:
    """The image's HEALTHCHECK, from the Dockerfile."""
    found = re.search(r"HEALTHCHECK .*?CMD (\[.*\])", (ROOT / "Dockerfile").read_text())
    assert found is not None
    words: list[str] = yaml.safe_load(found.group(1))
    return words


def arguments(host: Host, who: str, look: Look) -> list[str]:
    token = api.AccessToken(KEY, SECRET).with_identity(who).with_name(who)
    grants = api.VideoGrants(room_join=True, room="demo")
    rgb = ",".join(map(str, look.rgb))
    return [
        *("--url", f"ws://127.0.0.1:{host.public}", "--token", token.with_grants(grants).to_jwt()),
        *("--tone-hz", str(look.tone_hz), "--rgb", rgb),
    ]


@pytest.mark.peers
@pytest.mark.timeout(180)
async def test_the_services_run_and_two_people_talk(
    compose: Compose, tmp_path: Path, database: str
) -> None:
    host = Host(tmp_path, database)
    migrate = await host.start(compose.services["migrate"])
    assert await asyncio.wait_for(migrate.wait(), 60) == 0, host.log()
    async with (
        host.running(compose.services["worker"]) as worker,
        host.running(compose.services["parley"]) as parley,
    ):
        async with aiohttp.ClientSession() as http:

            async def is_well() -> bool:
                assert parley.returncode is None, host.log()
                with contextlib.suppress(aiohttp.ClientError):
                    async with http.get(f"http://127.0.0.1:{host.public}/healthz") as answer:
                        return answer.status == 200
                return False

            await within(40, is_well, "healthy")
        program, *words = health_command()
        assert program == "python"
        words = [word.replace(":8482/", f":{host.ops}/") for word in words]
        check = await asyncio.create_subprocess_exec(sys.executable, *words)
        assert await asyncio.wait_for(check.wait(), 20) == 0

        async with (
            PeerProcess("tests.peers.native", arguments(host, "ann", ANN), tmp_path / "ann") as ann,
            PeerProcess("tests.peers.native", arguments(host, "ben", BEN), tmp_path / "ben") as ben,
        ):
            await within(20, lambda: _hears(ann, BEN), "ann hears ben")
            await within(20, lambda: _hears(ben, ANN), "ben hears ann")
            await within(20, lambda: _read_back(ann, ben, "hello"), "the line")
            seen = await ann.ask("remote_candidates")
            assert {row["address"] for row in seen} == {"127.0.0.2"}
            assert {row["port"] for row in seen} == {host.media}
        assert worker.returncode is None
    assert parley.returncode == 0, host.log()
    assert "stopped" in host.log()


async def _hears(listener: PeerProcess, speaker: Look) -> bool:
    tones: list[Any] = [tone for heard in await listener.ask("peaks") for tone in heard["tones"]]
    return hears(tones, speaker.tone_hz)


async def _read_back(writer: PeerProcess, reader: PeerProcess, text: str) -> bool:
    if text in [line["text"] for line in await reader.ask("texts")]:
        return True
    await writer.ask("say", text=text)
    await asyncio.sleep(1)
    return False
