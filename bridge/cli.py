"""The command `parley`. Every error is a sentence on standard error and an exit code other than 0.

Verbs print what they make on standard output, so that it can be redirected. None of them changes a running
parley's state.
Not here: what `run` starts (`bridge.app`), configuration (`bridge.config`).
"""

import asyncio
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

import click
import jwt
import yaml
from pydantic import SecretStr

from bridge.conference.errors import ConferenceError, Refused
from bridge.config import Config, Section, load_config
from bridge.ops import logs

_log = logging.getLogger(__name__)


def main() -> NoReturn:
    """The console script."""
    try:
        parley.main(standalone_mode=False)
    except click.ClickException as why:
        why.show()
        sys.exit(why.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except ConferenceError as why:
        _fail([str(why)])
    except ExceptionGroup as group:
        ours, others = group.split(ConferenceError)
        if others is not None:
            _log.critical("parley broke", exc_info=others)
            _fail(["parley broke, which is a mistake of ours: the log has the details"])
        _fail([str(why) for why in _leaves(ours)])
    sys.exit(0)


def _fail(sentences: list[str]) -> NoReturn:
    for line in "\n".join(dict.fromkeys(sentences)).splitlines():
        click.echo(f"parley: {line}", err=True)
    sys.exit(1)


def _leaves(error: BaseException | None) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    elif error is not None:
        yield error


def _with_config(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "-c",
        "--config",
        "path",
        type=click.Path(path_type=Path),
        default=Path("config.yaml"),
        show_default=True,
        help="Configuration file.",
    )(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="parley", prog_name="parley")
def parley() -> None:
    """One conference for people on Matrix, XMPP, the web and LiveKit clients."""


@parley.command()
@_with_config
def run(path: Path) -> None:
    """Serve until interrupted."""
    config = load_config(path)
    logs.set_up(config.log.level, config.log.format, tuple(_secrets(config)))
    from bridge import app  # only here: the other verbs need none of what it imports

    asyncio.run(app.run(config))


@parley.group()
def config() -> None:
    """About the configuration."""


@config.command()
@_with_config
def check(path: Path) -> None:
    """Say what is wrong, or that nothing is."""
    loaded = load_config(path)
    gateways = ["livekit", *(n for n in ("matrix", "xmpp", "web") if getattr(loaded, n))]
    click.echo(f"{path} is fine. Gateways: {', '.join(gateways)}.")


@parley.command()
@_with_config
@click.option("--down", "revision", help="Go back to this revision instead (`base` = no tables).")
def migrate(path: Path, revision: str | None) -> None:
    """Make the database's tables, or bring them up to this version."""
    from bridge.store import schema

    url = load_config(path).database.url
    work = schema.migrate(url) if revision is None else schema.downgrade(url, revision)
    before, after = asyncio.run(work)
    if before == after:
        click.echo(f"The database is at revision {after or 'none'} already.")
    else:
        click.echo(f"The database went from revision {before or 'none'} to {after or 'none'}.")


@parley.command()
@_with_config
@click.option("--url", help="Where the homeserver reaches http.internal, if not as configured.")
def registration(path: Path, url: str | None) -> None:
    """Print the appservice registration for the homeserver."""
    loaded = load_config(path)
    matrix = loaded.matrix
    if matrix is None:
        raise Refused("matrix: there is no such section in the configuration: add it first")
    internal = loaded.http.internal
    host = f"[{internal.host}]" if ":" in internal.host else internal.host
    server = re.escape(matrix.server_name)
    users = [f"@{re.escape(matrix.bot)}:{server}", f"@{re.escape(matrix.ghost_prefix)}.*:{server}"]
    document = {
        "id": matrix.id,
        "url": url or f"http://{host}:{internal.port}",
        "as_token": matrix.as_token.get_secret_value(),
        "hs_token": matrix.hs_token.get_secret_value(),
        "sender_localpart": matrix.bot,
        "rate_limited": False,
        "receive_ephemeral": True,
        "namespaces": {
            "users": [{"exclusive": True, "regex": user} for user in users],
            "aliases": [],
            "rooms": [],
        },
    }
    click.echo(yaml.safe_dump(document, sort_keys=False), nl=False)


@parley.command()
@_with_config
def wellknown(path: Path) -> None:
    """Print what makes Matrix clients find Parley (MSC4143)."""
    loaded = load_config(path)
    service = (loaded.matrix and loaded.matrix.livekit_service_url) or loaded.http.public_url
    focus = {"type": "livekit", "livekit_service_url": service}
    server = loaded.matrix.server_name if loaded.matrix else "your.server"
    click.echo(f"# For older clients: merge into https://{server}/.well-known/matrix/client")
    click.echo(json.dumps({"org.matrix.msc4143.rtc_foci": [focus]}, indent=2))
    click.echo("\n# For Element Call: add to Synapse's homeserver.yaml")
    synapse = {
        "experimental_features": {"msc4143_enabled": True},
        "max_event_delay_duration": "24h",
        # Element Call reads livekit_service_url, newer homeservers want url: both.
        "matrix_rtc": {"transports": [{**focus, "url": _signalling_url(loaded)}]},
    }
    click.echo(yaml.safe_dump(synapse, sort_keys=False), nl=False)


@parley.command()
@_with_config
@click.option("--room", help="LiveKit room name.")
@click.option("--conference", "slug", help="A conference's short name, instead of --room.")
@click.option("--identity", required=True, help="The token's subject.")
@click.option("--name", default="", help="Display name.")
@click.option("--ttl", "ttl_s", type=click.IntRange(1, 21_600), default=3_600, show_default=True)
def token(
    path: Path, room: str | None, slug: str | None, identity: str, name: str, ttl_s: int
) -> None:
    """Print an access token for a LiveKit SDK; ttl in seconds."""
    if bool(room) == bool(slug):
        raise click.UsageError("give either --room or --conference")
    if not identity:
        raise click.UsageError("--identity must not be empty")
    loaded = load_config(path)
    pair = loaded.livekit.keys[0]
    now_s = int(time.time())
    claims: dict[str, object] = {
        "iss": pair.key,
        "sub": identity,
        "nbf": now_s,
        "exp": now_s + ttl_s,
        "video": {
            "roomJoin": True,
            "room": room or asyncio.run(_room_of(loaded, slug or "")),
            "canPublish": True,
            "canSubscribe": True,
            "canPublishData": True,
        },
    }
    if name:
        claims["name"] = name
    click.echo(jwt.encode(claims, pair.secret.get_secret_value(), algorithm="HS256"))


@parley.command()
@_with_config
@click.argument("conference")
def invite(path: Path, conference: str) -> None:
    """Print a guest link to CONFERENCE (its short name)."""
    loaded = load_config(path)
    if loaded.web is None:
        raise Refused("web: there is no such section in the configuration: add it first")
    if all(known.slug != conference for known in loaded.conferences):
        asyncio.run(_room_of(loaded, conference))
    try:
        from bridge.gateways.web import invite as invitations
    except ImportError as why:
        raise Refused("this installation has no web gateway, so there are no guest links") from why
    secret = loaded.web.invite_secret.get_secret_value()
    minted = invitations.mint(
        secret, conference, ttl_s=loaded.web.invite_ttl_s, now_s=int(time.time())
    )
    click.echo(invitations.link(loaded.http.public_url, minted))


async def _room_of(config: Config, slug: str) -> str:
    """The LiveKit room of a conference. Raises `Refused` when there is none of this name."""
    from bridge.store import open_directory

    async with open_directory(config) as directory:
        found = await directory.by_slug(slug)
    if found is None:
        raise Refused(f"there is no conference called {slug!r}: name it under `conferences` first")
    return found.room


def _signalling_url(config: Config) -> str:
    """What LiveKit clients connect to: livekit.url, or http.public_url as a WebSocket URL."""
    if config.livekit.url:
        return config.livekit.url
    parts = urlsplit(config.http.public_url)
    scheme = "wss" if parts.scheme == "https" else "ws"
    return parts._replace(scheme=scheme).geturl().rstrip("/")


def _secrets(value: Any) -> Iterator[str]:
    """Every secret of the configuration, for the log to hide."""
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, Section):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name))
    elif isinstance(value, tuple):
        for item in value:
            yield from _secrets(item)
    if isinstance(value, Config):
        password = urlsplit(value.database.url).password
        if password:
            yield password
            yield unquote(password)
