"""Each verb as an operator types it: what it prints, and one sentence when it cannot."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jwt
import pytest
import yaml

from bridge.cli import _secrets, main
from bridge.conference.errors import Refused, Unavailable
from bridge.config import Config, load_config
from bridge.store import open_store
from bridge.store.schema import migrate

SECRET = "0123456789abcdef0123456789abcdef"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    value = {
        "state_dir": str(tmp_path / "state"),
        "database": {"url": f"sqlite:///{tmp_path}/parley.db"},
        "http": {"public_url": "https://parley.test/"},
        "livekit": {"keys": [{"key": "k1", "secret": SECRET}]},
        "matrix": {
            "homeserver": "http://127.0.0.1:8008",
            "server_name": "hs.test",
            "as_token": "a" + SECRET,
            "hs_token": "h" + SECRET,
            "livekit_service_url": "https://parley.test",
        },
        "web": {"invite_secret": SECRET},
        "conferences": [{"slug": "demo"}],
    }
    path.write_text(yaml.safe_dump(value))
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["parley", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return call


def change(file: Path, **sections: Any) -> None:
    value = yaml.safe_load(file.read_text())
    for name, section in sections.items():
        if section is None:
            del value[name]
        else:
            value[name] = section
    file.write_text(yaml.safe_dump(value))


def test_config_check(run: Run, file: Path) -> None:
    assert run("config", "check", "-c", file) == (
        0,
        f"{file} is fine. Gateways: livekit, matrix, web.\n",
        "",
    )
    change(file, livekit={}, sfu={"mode": "x"})
    code, out, err = run("config", "check", "-c", file)
    assert (code, out) == (1, "")
    assert err == "parley: sfu.mode: input should be 'spawn' or 'external': correct it\n"


@pytest.mark.parametrize("verb", ["run", "migrate", "registration", "wellknown", "config check"])
def test_an_absent_file_is_one_sentence_everywhere(run: Run, tmp_path: Path, verb: str) -> None:
    code, out, err = run(*verb.split(), "-c", tmp_path / "none.yaml")
    assert (code, out) == (1, "")
    assert err.startswith("parley: ")
    assert err.count("\n") == 1


def test_migrate_up_down_and_again(run: Run, file: Path) -> None:
    made = re.compile(r"The database went from revision none to \d+\.\n")
    assert made.fullmatch(run("migrate", "-c", file)[1])
    assert "already" in run("migrate", "-c", file)[1]
    assert run("migrate", "-c", file, "--down", "base")[1].endswith("to none.\n")
    assert made.fullmatch(run("migrate", "-c", file)[1])


def test_an_unknown_revision_is_one_sentence(run: Run, file: Path) -> None:
    run("migrate", "-c", file)
    code, _, err = run("migrate", "-c", file, "--down", "9999")
    assert code == 1
    assert "knows no way from there" in err
    assert err.count("\n") == 1


def test_a_database_that_cannot_be_opened_is_one_sentence(run: Run, file: Path) -> None:
    folder = file.parent / "folder"
    folder.mkdir()
    change(file, database={"url": f"sqlite:///{folder}"})
    code, _, err = run("migrate", "-c", file)
    assert (code, err) == (1, "parley: database: unable to open database file\n")


def test_registration(run: Run, file: Path) -> None:
    code, out, _ = run("registration", "-c", file)
    assert code == 0
    made = yaml.safe_load(out)
    assert made["url"] == "http://127.0.0.1:8481"
    assert made["as_token"] == "a" + SECRET
    assert made["hs_token"] == "h" + SECRET
    assert (made["rate_limited"], made["receive_ephemeral"]) == (False, True)
    assert not [key for key in made if "msc4512" in key]
    users = made["namespaces"]["users"]
    assert all(user["exclusive"] for user in users)

    def claimed(user_id: str) -> bool:
        return any(re.match(user["regex"], user_id) for user in users)

    assert claimed("@parley:hs.test")
    assert claimed("@_parley_xmpp_bob=40x:hs.test")
    assert not claimed("@alice:hs.test")
    assert not claimed("@_parley_x:hsXtest")
    assert run("registration", "-c", file, "--url", "http://parley:8481")[1].count("parley:8481")
    change(file, matrix=None)
    code, out, err = run("registration", "-c", file)
    assert (code, out) == (1, "")
    assert err.startswith("parley: matrix: there is no such section")


def test_wellknown(run: Run, file: Path) -> None:
    code, out, _ = run("wellknown", "-c", file)
    assert code == 0
    client, synapse = out.split("\n\n")
    focus = {"type": "livekit", "livekit_service_url": "https://parley.test"}
    assert "https://hs.test/.well-known/matrix/client" in client
    assert json.loads(client.partition("\n")[2]) == {"org.matrix.msc4143.rtc_foci": [focus]}
    assert yaml.safe_load(synapse)["matrix_rtc"]["transports"] == [
        {**focus, "url": "wss://parley.test"}
    ]


def test_token_for_a_room(run: Run, file: Path) -> None:
    code, out, _ = run(
        *("token", "-c", file, "--room", "r", "--identity", "bot", "--name", "Bot", "--ttl", 60)
    )
    assert code == 0
    assert jwt.get_unverified_header(out.strip())["alg"] == "HS256"
    claims = jwt.decode(out.strip(), SECRET, algorithms=["HS256"], issuer="k1")
    assert (claims["sub"], claims["name"]) == ("bot", "Bot")
    assert claims["exp"] - claims["nbf"] == 60
    assert claims["video"]["room"] == "r"
    assert claims["video"]["roomJoin"] is True


async def _make_conference(config: Config) -> None:
    await migrate(config.database.url)
    stores = await open_store(config)
    await stores.directory.create(room="hashed-room", slug="standup")
    await stores.close()


def test_token_and_invite_for_a_conference_in_the_database(run: Run, file: Path) -> None:
    code, _, err = run("token", "-c", file, "--conference", "standup", "--identity", "bot")
    assert code == 1
    assert "run `parley migrate`" in err
    asyncio.run(_make_conference(load_config(file, {})))
    code, out, _ = run("token", "-c", file, "--conference", "standup", "--identity", "bot")
    claims = jwt.decode(out.strip(), SECRET, algorithms=["HS256"])
    assert (code, claims["video"]["room"]) == (0, "hashed-room")
    code, _, err = run("token", "-c", file, "--conference", "other", "--identity", "bot")
    assert (code, err.count("\n")) == (1, 1)
    assert "there is no conference called 'other'" in err
    assert run("invite", "-c", file, "standup")[1].startswith("https://parley.test/")
    assert run("invite", "-c", file, "other")[0] == 1


def test_invite_to_a_configured_conference_needs_no_database(run: Run, file: Path) -> None:
    from bridge.gateways.web import invite

    code, out, err = run("invite", "-c", file, "demo")
    assert (code, err) == (0, "")
    read = invite.read(SECRET, out.strip().rpartition("/")[2], now_s=0)
    assert read.slug == "demo"
    change(file, web=None)
    assert run("invite", "-c", file, "demo")[0] == 1


@pytest.mark.parametrize(
    "words",
    [
        ("token", "--identity", "x"),
        ("token", "--identity", "x", "--room", "a", "--conference", "b"),
        ("token", "--room", "a"),
        ("token", "--room", "a", "--identity", ""),
        ("token", "--room", "a", "--identity", "x", "--ttl", "99999"),
        ("invite",),
        ("nonsense",),
    ],
)
def test_wrong_words_end_with_2(run: Run, file: Path, words: tuple[str, ...]) -> None:
    assert run(*words)[0] == 2


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (Refused("the port is taken"), "parley: the port is taken\n"),
        (
            ExceptionGroup(
                "", [Unavailable("a"), ExceptionGroup("", [Refused("b"), Refused("a")])]
            ),
            "parley: a\nparley: b\n",
        ),
        (
            ExceptionGroup("", [KeyError("x")]),
            "parley: parley broke, which is a mistake of ours: the log has the details\n",
        ),
    ],
)
def test_run_tells_why_it_ended(
    run: Run, file: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, shown: str
) -> None:
    async def fails(_config: Config) -> None:
        raise error

    fake = ModuleType("bridge.app")
    fake.run = fails  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bridge.app", fake)
    monkeypatch.setattr("bridge.app", fake, raising=False)
    monkeypatch.setattr("bridge.cli.logs.set_up", lambda *_: None)
    code, _, err = run("run", "-c", file)
    assert (code, err) == (1, shown)


def test_run_serves_until_it_is_done(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Config] = []

    async def serve(config: Config) -> None:
        served.append(config)

    fake = ModuleType("bridge.app")
    fake.run = serve  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bridge.app", fake)
    monkeypatch.setattr("bridge.app", fake, raising=False)
    monkeypatch.setattr("bridge.cli.logs.set_up", lambda *_: None)
    assert run("run", "-c", file) == (0, "", "")
    assert served[0].matrix is not None


def test_every_secret_is_known_to_the_log(file: Path) -> None:
    change(file, database={"url": "postgresql+asyncpg://u:p%40ss@h/d"})
    found = set(_secrets(load_config(file, {})))
    assert found == {SECRET, "a" + SECRET, "h" + SECRET, "p%40ss", "p@ss"}


def test_python_m_bridge_is_parley() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bridge", "--help"], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0
    for verb in ("run", "config", "migrate", "registration", "wellknown", "token", "invite"):
        assert re.search(rf"^  {verb} ", done.stdout, re.M)
