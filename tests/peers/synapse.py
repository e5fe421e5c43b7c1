"""A real homeserver for tests: Synapse on loopback, SQLite, free ports, a directory that is removed afterwards.

Runs `synapse_homeserver` of the environment in `.venv-synapse` (a separate one: its pins are not ours).
Room version 11, open registration, delayed events (MSC4140) on, MatrixRTC transports (MSC4143) on, no
MSC4512 (its 401 on the probe path turns one-hour ghosts on, see docs/gateways/matrix.md).
Not here: what parley answers to it (`bridge.gateways.matrix`).
"""

import asyncio
import json
import secrets
import shutil
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import yaml
from yarl import URL

ENVIRONMENT = Path(__file__).resolve().parents[2] / ".venv-synapse"
CALL_MEMBER = "org.matrix.msc3401.call.member"
ENCRYPTION = {"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
READY_S = 60.0  # the first start writes the schema; 3 s on an idle machine, much more on a busy one
STOP_S = 10.0


def why_not() -> str:
    """Empty when Synapse can run here, otherwise the reason to print when a test is skipped."""
    program = ENVIRONMENT / "bin" / "python"
    return "" if program.exists() else f"no Synapse: {program} is missing"


def free_port() -> int:
    """A TCP port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class MatrixError(Exception):
    """The homeserver answered with an error."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status
        self.errcode = str(body.get("errcode", "")) if isinstance(body, dict) else ""


@dataclass(slots=True)
class User:
    """A real account with its access token: the least of a client."""

    server: "Synapse"
    mxid: str
    device: str
    token: str

    async def call(self, method: str, path: str, body: Any = None, **query: str) -> dict[str, Any]:
        return await self.server.call(method, path, body, token=self.token, **query)

    async def create_room(
        self,
        *,
        invite: tuple[str, ...] = (),
        name: str = "",
        call_member_level: int | None = 0,
        public: bool = True,
        levels: Mapping[str, int] | None = None,
        is_encrypted: bool = False,
    ) -> str:
        """A room where everybody may publish call memberships (unless `call_member_level` is None)."""
        override: dict[str, Any] = {}
        if call_member_level is not None:
            override["events"] = {
                CALL_MEMBER: call_member_level,
                "m.call.member": call_member_level,
            }
        if levels:
            override["users"] = {self.mxid: 100, **levels}
        answer = await self.call(
            "POST",
            "/_matrix/client/v3/createRoom",
            {
                "preset": "public_chat" if public else "private_chat",
                "name": name,
                "invite": list(invite),
                "power_level_content_override": override,
                "initial_state": [ENCRYPTION] if is_encrypted else [],
            },
        )
        return str(answer["room_id"])

    async def join(self, room: str) -> None:
        await self.call("POST", f"/_matrix/client/v3/join/{quote(room)}")

    async def leave(self, room: str) -> None:
        await self.call("POST", f"/_matrix/client/v3/rooms/{quote(room)}/leave")

    async def say(self, room: str, text: str, **content: Any) -> str:
        answer = await self.call(
            "PUT",
            f"/_matrix/client/v3/rooms/{quote(room)}/send/m.room.message/{secrets.token_hex(8)}",
            {"msgtype": "m.text", "body": text, **content},
        )
        return str(answer["event_id"])

    async def history(self, room: str, limit: int = 50) -> list[dict[str, Any]]:
        """Newest last."""
        answer = await self.call(
            "GET",
            f"/_matrix/client/v3/rooms/{quote(room)}/messages",
            dir="b",
            limit=str(limit),
        )
        return list(reversed(answer["chunk"]))

    async def state(self, room: str) -> list[dict[str, Any]]:
        answer: Any = await self.call("GET", f"/_matrix/client/v3/rooms/{quote(room)}/state")
        return list(answer)

    async def put_state(self, room: str, kind: str, content: Any, key: str = "") -> str:
        answer = await self.call(
            "PUT",
            f"/_matrix/client/v3/rooms/{quote(room)}/state/{quote(kind)}/{quote(key)}",
            content,
        )
        return str(answer["event_id"])

    async def call_members(self, room: str) -> dict[str, dict[str, Any]]:
        """state_key -> content of every call membership that is not a leave."""
        return {
            event["state_key"]: event["content"]
            for event in await self.state(room)
            if event["type"] == CALL_MEMBER and event["content"]
        }

    async def openid(self) -> dict[str, Any]:
        return await self.call(
            "POST", f"/_matrix/client/v3/user/{quote(self.mxid)}/openid/request_token", {}
        )


@dataclass(slots=True)
class Synapse:
    """`async with Synapse(appservice_url=...) as server:`; `restart()` keeps data and port."""

    appservice_url: str = ""
    service_url: str = "http://localhost:8480"
    sfu_url: str = ""
    server_name: str = "hs.test"
    appservice_id: str = "parley"
    bot: str = "parley"
    ghost_prefix: str = "_parley_"
    as_token: str = field(default_factory=lambda: secrets.token_hex(32))
    hs_token: str = field(default_factory=lambda: secrets.token_hex(32))
    port: int = 0
    delayed_events: bool = True
    shared_secret: str = field(default_factory=lambda: secrets.token_hex(16))
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="parley-synapse-")))
    _process: asyncio.subprocess.Process | None = None
    _http: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        """Base URL of the client-server (and federation, openid) API."""
        return f"http://localhost:{self.port}"

    @property
    def bot_mxid(self) -> str:
        return f"@{self.bot}:{self.server_name}"

    async def __aenter__(self) -> Self:
        self.port = self.port or free_port()
        self._write_configuration()
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        try:
            await self.start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        await self.stop()
        if self._http is not None:
            await self._http.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write_configuration(self) -> None:
        here = self.folder
        transport = {
            "type": "livekit",
            "livekit_service_url": self.service_url,
            "url": self.sfu_url or self.service_url.replace("http", "ws", 1),
        }
        generous = {"per_second": 1000, "burst_count": 1000}
        configuration: dict[str, Any] = {
            "server_name": self.server_name,
            "public_baseurl": f"{self.url}/",
            "pid_file": str(here / "synapse.pid"),
            "listeners": [
                {
                    "port": self.port,
                    "tls": False,
                    "type": "http",
                    "bind_addresses": ["127.0.0.1"],
                    "resources": [{"names": ["client", "federation", "openid"], "compress": False}],
                }
            ],
            "database": {"name": "sqlite3", "args": {"database": str(here / "homeserver.db")}},
            "log_config": str(here / "log.yaml"),
            "media_store_path": str(here / "media"),
            "signing_key_path": str(here / "signing.key"),
            "trusted_key_servers": [],
            "suppress_key_server_warning": True,
            "report_stats": False,
            "enable_registration": True,
            "enable_registration_without_verification": True,
            "registration_shared_secret": self.shared_secret,
            "bcrypt_rounds": 4,
            "default_room_version": "11",
            "experimental_features": {
                "msc3266_enabled": True,
                "msc4143_enabled": True,
                "msc4222_enabled": True,
            },
            "matrix_rtc": {"transports": [transport]},
            "extra_well_known_client_content": {"org.matrix.msc4143.rtc_foci": [transport]},
            "serve_server_wellknown": True,
            "presence": {"enabled": False},
            "rc_message": generous,
            "rc_registration": generous,
            "rc_joins": {"local": generous, "remote": generous},
            "rc_invites": {"per_room": generous, "per_user": generous, "per_issuer": generous},
            "rc_login": {"address": generous, "account": generous, "failed_attempts": generous},
            "rc_delayed_event_mgmt": generous,
        }
        if self.delayed_events:
            configuration["max_event_delay_duration"] = "24h"
        if self.appservice_url:
            configuration["app_service_config_files"] = [str(here / "appservice.yaml")]
            self._write("appservice.yaml", self.registration())
        self._write("homeserver.yaml", configuration)
        self._write(
            "log.yaml",
            {
                "version": 1,
                "formatters": {
                    "plain": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}
                },
                "handlers": {
                    "file": {
                        "class": "logging.FileHandler",
                        "formatter": "plain",
                        "filename": str(here / "homeserver.log"),
                    }
                },
                "root": {"level": "INFO", "handlers": ["file"]},
            },
        )

    def registration(self) -> dict[str, Any]:
        """The appservice registration the homeserver reads."""
        escaped = self.server_name.replace(".", "\\.")
        return {
            "id": self.appservice_id,
            "url": self.appservice_url,
            "as_token": self.as_token,
            "hs_token": self.hs_token,
            "sender_localpart": self.bot,
            "rate_limited": False,
            "namespaces": {
                "users": [{"exclusive": True, "regex": f"@{self.ghost_prefix}.*:{escaped}"}],
                "aliases": [],
                "rooms": [],
            },
        }

    def _write(self, name: str, value: Any) -> None:
        (self.folder / name).write_text(yaml.safe_dump(value))

    async def start(self) -> None:
        """Start and wait until it answers."""
        log = (self.folder / "stdout.log").open("ab")
        try:
            self._process = await asyncio.create_subprocess_exec(
                str(ENVIRONMENT / "bin" / "python"),
                "-m",
                "synapse.app.homeserver",
                "--config-path",
                str(self.folder / "homeserver.yaml"),
                "--generate-keys",
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
            if await self._process.wait() != 0:
                raise RuntimeError(self.last_words())
            self._process = await asyncio.create_subprocess_exec(
                str(ENVIRONMENT / "bin" / "python"),
                "-m",
                "synapse.app.homeserver",
                "--config-path",
                str(self.folder / "homeserver.yaml"),
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        finally:
            log.close()
        async with asyncio.timeout(READY_S):
            while True:
                if self._process.returncode is not None:
                    raise RuntimeError(self.last_words())
                try:
                    await self.call("GET", "/_matrix/client/versions")
                except (aiohttp.ClientError, MatrixError):
                    await asyncio.sleep(0.1)
                else:
                    return

    def last_words(self) -> str:
        """The end of what it printed and logged, for a failing test."""
        text = ""
        for name in ("stdout.log", "homeserver.log"):
            path = self.folder / name
            if path.exists():
                text += path.read_text(errors="replace")[-3000:]
        return text

    async def stop(self) -> None:
        """End the process that we started; data stays."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def restart(self, down_s: float = 0.0) -> None:
        await self.stop()
        await asyncio.sleep(down_s)
        await self.start()

    async def call(
        self, method: str, path: str, body: Any = None, *, token: str = "", **query: str
    ) -> dict[str, Any]:
        assert self._http is not None, "use `async with`"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if method != "GET" and body is None:
            body = {}
        async with self._http.request(
            method,
            _url(self.url, path),
            data=None if body is None else json.dumps(body),
            headers={**headers, "Content-Type": "application/json"},
            params=query,
        ) as response:
            answer = await response.json(content_type=None)
            if response.status >= 300:
                raise MatrixError(response.status, answer)
            return answer  # type: ignore[no-any-return]

    async def register(self, name: str, *, display_name: str = "", password: str = "") -> User:
        """Open registration (one dummy stage)."""
        answer = await self.call(
            "POST",
            "/_matrix/client/v3/register",
            {
                "username": name,
                "password": password or secrets.token_hex(16),
                "auth": {"type": "m.login.dummy"},
            },
        )
        return await self._user(answer, display_name)

    async def _user(self, answer: Mapping[str, Any], display_name: str) -> User:
        user = User(
            self, str(answer["user_id"]), str(answer["device_id"]), str(answer["access_token"])
        )
        if display_name:
            await user.call(
                "PUT",
                f"/_matrix/client/v3/profile/{quote(user.mxid)}/displayname",
                {"displayname": display_name},
            )
        return user


def _url(base: str, path: str) -> URL:
    """Already quoted: keep `%21` as it is."""
    return URL(base + path, encoded=True)
