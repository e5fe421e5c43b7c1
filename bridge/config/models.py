"""The configuration's shape: pydantic models; every default with its unit in the key's name.

Not here: reading files (`loading`), what makes a deployment safe (`rules`), defaults that are nobody's choice
(constants beside the code that uses them), what each key means to an operator (docs/running.md).
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from bridge.conference.streams import MAX_LAST_N, MAX_LOUDEST, MAX_QUIET_VIDEO_S


class Section(BaseModel):
    """Base: no unknown keys, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Database(Section):
    url: str = "sqlite:///parley.db"


class Tls(Section):
    cert: Path
    key: Path


class Listen(Section):
    """One HTTP listener."""

    host: str = "127.0.0.1"
    port: int = Field(ge=0, le=65535)


class HttpSection(Section):
    """public: browsers and clients; internal: the homeserver's appservice transactions; ops: health, metrics."""

    public: Listen = Listen(port=8480)
    internal: Listen = Listen(port=8481)
    ops: Listen = Listen(port=8482)
    public_url: str = "http://localhost:8480"
    tls: Tls | None = None
    trusted_proxies: tuple[str, ...] = ()


class SfuSection(Section):
    mode: Literal["spawn", "external"] = "spawn"
    socket: Path | None = None  # default: <state_dir>/sfu.sock
    orphan_s: int = Field(default=600, ge=1)


class MediaSection(Section):
    """listen: addresses the port is bound on; advertise: addresses put into candidates (empty = listen, a
    wildcard being all addresses of this machine that allow and deny, networks and
    interfaces, leave)."""

    listen: tuple[str, ...] = ("127.0.0.1",)
    port: int = Field(default=8470, ge=0, le=65535)
    advertise: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    tcp: bool = True
    dscp: bool = True
    shards: int = Field(default=1, ge=0, le=64)


class TurnSection(Section):
    """A coturn with `use-auth-secret`: we make the credentials, each good for `ttl_s` (S17)."""

    urls: tuple[str, ...]
    secret: SecretStr
    ttl_s: int = Field(default=300, ge=30, le=300)


class ApiKey(Section):
    """A LiveKit API key pair: `key` is the token's issuer."""

    key: str
    secret: SecretStr


class LivekitSection(Section):
    """url: what clients are told (empty = from http.public_url); keys: the first one mints our own tokens.

    full_access_homeservers: `*` or server names whose users get MatrixRTC tokens; video_codecs: what may be
    published, the first by clients that want another.
    """

    url: str = ""
    keys: tuple[ApiKey, ...] = ()
    full_access_homeservers: tuple[str, ...] = ("*",)
    video_codecs: tuple[Literal["VP8", "VP9", "AV1", "H264"], ...] = Field(
        default=("VP8",), min_length=1
    )


class MatrixSection(Section):
    """homeserver: client-server URL we call; server_name: its domain; livekit_service_url: string-equal to
    what the homeserver advertises (empty = http.public_url)."""

    homeserver: str
    server_name: str
    as_token: SecretStr
    hs_token: SecretStr
    id: str = "parley"
    bot: str = "parley"
    ghost_prefix: str = "_parley_"
    livekit_service_url: str = ""
    admins: tuple[str, ...] = ()
    allow_private_federation: bool = (
        False  # tests and closed networks: OpenID checks may reach private addresses
    )
    federation_overrides: dict[str, str] = {}  # server name -> base URL, instead of discovery


class XmppSection(Section):
    """An external component (XEP-0114). muc_nick_suffix is appended when a nick is taken."""

    component: str
    secret: SecretStr
    host: str = "127.0.0.1"
    port: int = Field(default=5347, ge=1, le=65535)
    tls: bool = False
    ca: Path | None = None
    admins: tuple[str, ...] = ()
    muc_nick_suffix: str = " (m)"


class WebSection(Section):
    """The guest page. Invitation links live `invite_ttl_s`; guest tokens `token_ttl_s`."""

    invite_secret: SecretStr
    invite_ttl_s: int = Field(default=86_400, ge=60)
    token_ttl_s: int = Field(default=3_600, ge=60, le=21_600)


class PolicySection(Section):
    """What is forwarded in large conferences; 0 = everything. See `sfu.protocol.Policy`.

    last_n: pictures each person receives; quiet_video_s: silence after which a picture is held back; loudest:
    voices forwarded; audience: roles whose pictures are forwarded only while they speak.
    """

    last_n: int = Field(default=0, ge=0, le=MAX_LAST_N)
    quiet_video_s: float = Field(default=0, ge=0, le=MAX_QUIET_VIDEO_S)
    loudest: int = Field(default=0, ge=0, le=MAX_LOUDEST)
    audience: tuple[Literal["guest", "member"], ...] = ()


class ConferenceSection(Section):
    """A conference that exists from the start, with the places it is bound to."""

    slug: str
    title: str = ""
    matrix: tuple[str, ...] = ()
    xmpp: tuple[str, ...] = ()
    policy: PolicySection | None = None  # instead of everybody's


class ClusterSection(Section):
    """Several parleys as one: memory = this one alone; nats = over a NATS server (not in this release)."""

    mode: Literal["memory", "nats"] = "memory"
    url: str = "nats://127.0.0.1:4222"


class LogSection(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "text"


class Config(Section):
    """The whole file. A gateway is on when its section is there (livekit always is)."""

    state_dir: Path = Path("state")
    database: Database = Database()
    http: HttpSection = HttpSection()
    sfu: SfuSection = SfuSection()
    media: MediaSection = MediaSection()
    turn: TurnSection | None = None
    livekit: LivekitSection = LivekitSection()
    matrix: MatrixSection | None = None
    xmpp: XmppSection | None = None
    web: WebSection | None = None
    policy: PolicySection = PolicySection()
    conferences: tuple[ConferenceSection, ...] = ()
    cluster: ClusterSection = ClusterSection()
    log: LogSection = LogSection()
