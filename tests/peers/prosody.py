"""A real XMPP server for tests: Debian's Prosody on loopback, free ports, a directory that is removed afterwards.

Virtual host `call.test` (plain passwords, STARTTLS offered with a certificate of our own authority), chat rooms
at `muc.call.test` (persistent, with an archive), our component at `conf.call.test`.
Not here: clients (`tests.peers.jingle`), parley (`tests.peers.parley`).
"""

import asyncio
import contextlib
import datetime
import ipaddress
import os
import secrets
import shutil
import signal
import socket
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PROGRAM = shutil.which("prosody")
READY_S = 20.0
STOP_S = 10.0

_CONFIG = """
pidfile = "{folder}/prosody.pid"
data_path = "{folder}/data"
run_as_root = true
interfaces = {{ "127.0.0.1" }}
local_interfaces = {{ "127.0.0.1" }}
component_interfaces = {{ "127.0.0.1" }}
component_ports = {{ {component_port} }}
c2s_ports = {{ {c2s_port} }}
c2s_direct_tls_ports = {{ }}
s2s_ports = {{ }}
http_ports = {{ }}
https_ports = {{ }}
modules_enabled = {{ "roster", "saslauth", "tls", "disco", "carbons", "pep", "blocklist", "vcard4", "vcard_legacy", "ping", "smacks", "mam", "bookmarks", "external_services" }}
modules_disabled = {{ "s2s" }}
allow_registration = false
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
storage = "internal"
external_service_host = "127.0.0.1"
external_service_port = 3478
external_service_secret = "none"
log = {{ {level} = "{folder}/prosody.log" }}
ssl = {{ key = "{folder}/server.key", certificate = "{folder}/server.crt" }}
muc_room_default_persistent = true
VirtualHost "{domain}"
Component "{muc}" "muc"
  modules_enabled = {{ "muc_mam" }}
  muc_log_by_default = true
  restrict_room_creation = false
Component "{component}"
  component_secret = "{secret}"
"""


def why_not() -> str:
    """Empty when Prosody can run here, otherwise the reason to print when a test is skipped."""
    return "" if PROGRAM else "no Prosody: apt install prosody"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class Prosody:
    """`async with Prosody() as server:`; `restart` and `kill` for fault tests keep ports and data."""

    domain: str = "call.test"
    c2s_port: int = 0
    component_port: int = 0
    component_secret: str = field(default_factory=lambda: secrets.token_hex(32))
    level: str = "info"
    folder: Path = Path()
    _process: asyncio.subprocess.Process | None = None

    @property
    def muc(self) -> str:
        return f"muc.{self.domain}"

    @property
    def component(self) -> str:
        return f"conf.{self.domain}"

    @property
    def ca(self) -> Path:
        """The authority's certificate, for clients that check."""
        return self.folder / "ca.crt"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("prosody does not run")
        return self._process.pid

    async def __aenter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="prosody-"))
        try:
            self.c2s_port = self.c2s_port or _free_port()
            self.component_port = self.component_port or _free_port()
            (self.folder / "data").mkdir()
            _write_certificates(self.folder, (self.domain, self.muc, self.component, "localhost"))
            (self.folder / "prosody.cfg.lua").write_text(
                _CONFIG.format(
                    folder=self.folder,
                    component_port=self.component_port,
                    c2s_port=self.c2s_port,
                    level=self.level,
                    domain=self.domain,
                    muc=self.muc,
                    component=self.component,
                    secret=self.component_secret,
                )
            )
            await self.start()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    async def start(self) -> None:
        if PROGRAM is None:
            raise RuntimeError(why_not())
        with (self.folder / "output").open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                PROGRAM,
                "-F",
                "--config",
                str(self.folder / "prosody.cfg.lua"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(READY_S):
                for port in (self.c2s_port, self.component_port):
                    while not await _accepts(port):
                        if self._process.returncode is not None:
                            raise RuntimeError(f"prosody ended at start:\n{self.last_words()}")
                        await asyncio.sleep(0.05)
        except BaseException:
            await self.kill()
            raise

    async def stop(self) -> None:
        """SIGTERM, as an administrator does; rooms are saved."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """SIGKILL: nothing is saved, nobody is told."""
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            await process.wait()

    async def restart(self, *, down_s: float = 0.0) -> None:
        await self.stop()
        await asyncio.sleep(down_s)
        await self.start()

    async def register(self, user: str, password: str) -> str:
        """An account, in Prosody's own file format; returns its bare JID."""
        folder = self.folder / "data" / self.domain.replace(".", "%2e") / "accounts"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{user}.dat").write_text(f'return {{\n\t["password"] = "{password}";\n}};\n')
        return f"{user}@{self.domain}"

    def last_words(self, lines: int = 30) -> str:
        found = ""
        for name in ("prosody.log", "output"):
            with contextlib.suppress(OSError):
                found += (self.folder / name).read_text(errors="replace")
        return "\n".join(found.splitlines()[-lines:])


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def _write_certificates(folder: Path, names: tuple[str, ...]) -> None:
    """An authority and a server certificate, both good for a week."""
    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Parley test authority")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=7))
        )

    authority = (
        builder(ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    alternatives = [*(x509.DNSName(one) for one in names)]
    certificate = (
        builder(name, key.public_key())
        .add_extension(
            x509.SubjectAlternativeName(
                [*alternatives, x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .sign(ca_key, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    (folder / "server.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "server.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
