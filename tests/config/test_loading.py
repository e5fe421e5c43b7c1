"""What refuses to start, and that the sentence names the key and the fix."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bridge.config import Config, Misconfigured, load_config, problems

SECRET = "0123456789abcdef0123456789abcdef"
GOOD: dict[str, Any] = {
    "livekit": {"keys": [{"key": "parley", "secret": SECRET}]},
    "matrix": {
        "homeserver": "http://127.0.0.1:8008",
        "server_name": "hs.test",
        "as_token": SECRET,
        "hs_token": SECRET + "x",
    },
    "xmpp": {"component": "conf.test", "secret": "s"},
    "web": {"invite_secret": SECRET},
    "conferences": [{"slug": "demo", "matrix": ["!a:hs.test"], "xmpp": ["demo@muc.test"]}],
}


def load(tmp_path: Path, value: Any, environ: dict[str, str] | None = None) -> Config:
    file = tmp_path / "config.yaml"
    file.write_text(value if isinstance(value, str) else yaml.safe_dump(value))
    return load_config(file, environ or {})


def changed(**changes: Any) -> dict[str, Any]:
    """GOOD with `section__key=value` set (`...` removes the key)."""
    value: dict[str, Any] = yaml.safe_load(yaml.safe_dump(GOOD))
    for path, new in changes.items():
        *above, last = path.split("__")
        here = value
        for key in above:
            here = here.setdefault(key, {})
        if new is ...:
            del here[last]
        else:
            here[last] = new
    return value


def test_a_good_file_loads(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    assert config.livekit.keys[0].secret.get_secret_value() == SECRET
    assert SECRET not in repr(config)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"htpt": {}}, "htpt: unknown key: did you mean `http`?"),
        ({"http__pubic": {}}, "http.pubic: unknown key: did you mean `public`?"),
        ({"zzz": 1}, "zzz: unknown key: remove it"),
        ({"xmpp__component": ...}, "xmpp.component: is missing: add it"),
        ({"http__public": {"port": 70000}}, "http.public.port: input should be less than"),
        ({"sfu__mode": "threads"}, "sfu.mode: input should be 'spawn' or 'external'"),
        ({"livekit": {}}, "livekit.keys: is empty, so nobody could join: add one"),
        (
            {"livekit": {"keys": [{"key": "k", "secret": "short"}]}},
            "livekit.keys.0.secret: has 5 bytes: set it to 32 random bytes",
        ),
        (
            {"livekit": {"keys": [{"key": "k", "secret": SECRET}] * 2}},
            "livekit.keys.1.key: 'k' is empty or used twice",
        ),
        (
            {"livekit": {"keys": [{"key": "k", "secret": SECRET}], "video_codecs": ["VP8"] * 2}},
            "livekit.video_codecs.1: VP8 is there twice",
        ),
        ({"web__invite_secret": "x" * 31}, "web.invite_secret: has 31 bytes"),
        ({"matrix__as_token": "x"}, "matrix.as_token: has 1 bytes"),
        ({"matrix__hs_token": "é" * 15}, "matrix.hs_token: has 30 bytes"),
        ({"matrix__hs_token": SECRET}, "matrix.hs_token: equals matrix.as_token"),
        ({"matrix__homeserver": "hs.test"}, "matrix.homeserver: must be a URL"),
        ({"matrix__bot": "Parley Bot"}, "matrix.bot: must be part of a Matrix user id"),
        ({"matrix__admins": ["me"]}, "matrix.admins.0: 'me' is no Matrix id"),
        ({"xmpp__host": "xmpp.test"}, "xmpp.secret: would cross the network to xmpp.test"),
        ({"xmpp__host": "0.0.0.0"}, "xmpp.secret: would cross the network"),
        ({"xmpp__host": "127.0.0.1.nip.io"}, "xmpp.secret: would cross the network"),
        ({"xmpp__secret": ""}, "xmpp.secret: is empty"),
        ({"xmpp__admins": ["me@"]}, "xmpp.admins.0: 'me@' is no bare JID"),
        (
            {"http__public": {"host": "0.0.0.0", "port": 8480}},
            "http.public.host: 0.0.0.0 is not loopback and would carry tokens in the clear: set http.tls",
        ),
        ({"http__trusted_proxies": ["10.0.0.0/40"]}, "http.trusted_proxies.0: '10.0.0.0/40' is no"),
        ({"http__ops": {"port": 8480}}, "http.ops.port: 8480 is http.public's already"),
        ({"http__public_url": "localhost:8480"}, "http.public_url: must be a URL"),
        ({"http__public_url": "https://a:b@c.test"}, "http.public_url: must be a URL"),
        ({"http__public_url": "https://c.test:99999"}, "http.public_url: must be a URL"),
        ({"http__public_url": "https://c.test/?x"}, "http.public_url: must end with the path"),
        ({"livekit__url": "https://c.test"}, "livekit.url: must be a URL that begins with ws://"),
        ({"database__url": "mysql://x"}, "database.url: must begin with sqlite:///"),
        ({"database__url": "sqlite:///:memory:"}, "database.url: names no file"),
        ({"cluster__mode": "nats"}, "cluster.mode: several parleys cannot share an SQLite file"),
        (
            {"cluster__mode": "nats", "database__url": "postgresql+asyncpg://h/d"},
            "cluster.mode: nats is not in this release",
        ),
        ({"media__listen": ["localhost"]}, "media.listen.0: 'localhost' is no IP address"),
        ({"media__listen": []}, "media.listen: is empty"),
        (
            {"media__listen": [f"127.0.0.{number}" for number in range(1, 33)]},
            "media.listen: has more than 31 addresses",
        ),
        (
            {"media__deny": ["10.0.0.0/33"]},
            "media.deny.0: '10.0.0.0/33' is no address, network or interface",
        ),
        ({"media__allow": ["eth 0"]}, "media.allow.0: 'eth 0' is no address, network or interface"),
        (
            {"media__advertise": ["192.0.2.1"], "media__deny": ["10.0.0.0/8"]},
            "media.advertise: says exactly what clients are told",
        ),
        ({"turn": {"urls": ["turn:t.test"], "secret": "x"}}, "turn.secret: has 1 bytes"),
        ({"turn": {"urls": [], "secret": SECRET}}, "turn.urls: is empty"),
        ({"turn": {"urls": ["https://t.test"], "secret": SECRET}}, "turn.urls.0: 'https://t.test'"),
        (
            {"turn": {"urls": ["turn:t.test"], "secret": SECRET, "ttl_s": 301}},
            "turn.ttl_s: input should be less than or equal to 300",
        ),
        ({"media__advertise": ["::"]}, "media.advertise.0: :: is nowhere"),
        ({"conferences": [{"slug": "De mo"}]}, "conferences.0.slug: 'De mo' must be"),
        ({"conferences": [{"slug": "a"}, {"slug": "a"}]}, "conferences.1.slug: 'a' is used twice"),
        (
            {"conferences": [{"slug": s, "xmpp": ["m@x"]} for s in "ab"]},
            "conferences.1.xmpp: m@x belongs to conferences.0: bind it once",
        ),
        ({"xmpp": ...}, "conferences.0.xmpp: there is no xmpp section"),
        ("a: [", "line 1: not YAML"),
        ("- a", "must be a mapping of sections"),
    ],
)
def test_what_is_wrong_refuses_to_start(tmp_path: Path, changes: Any, sentence: str) -> None:
    value = changes if isinstance(changes, str) else changed(**changes)
    with pytest.raises(Misconfigured) as caught:
        load(tmp_path, value)
    assert any(sentence in problem for problem in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    "changes",
    [
        {"database__url": "sqlite+aiosqlite:///old.db"},
        {"xmpp__host": "xmpp.test", "xmpp__tls": True},
        {"xmpp__host": "::1"},
        {"http__public": {"host": "::", "port": 1}, "http__trusted_proxies": ["10.0.0.0/8"]},
        {"http__public": {"host": "0.0.0.0", "port": 1}, "http__tls": {"cert": "c", "key": "k"}},
        {"media__listen": ["0.0.0.0"], "media__advertise": ["192.0.2.1"]},
        {"media__listen": ["0.0.0.0"], "sfu__mode": "external"},
        {
            "media__listen": ["0.0.0.0", "::"],
            "media__deny": ["172.17.0.0/16", "fd00::/8", "docker*"],
        },
        {"turn": {"urls": ["turns:[2001:db8::1]:443?transport=tcp"], "secret": SECRET}},
        {"database__url": "postgresql+asyncpg://u:p@h/d"},
    ],
)
def test_what_is_safe_starts(tmp_path: Path, changes: Any) -> None:
    load(tmp_path, changed(**changes))


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as caught:
        load(tmp_path, changed(xmpp__secret="", web__invite_secret="", matrix__bot=" "))
    assert len(caught.value.problems) == 3


def test_an_absent_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"cannot be read \(No such file or directory\)"):
        load_config(tmp_path / "none.yaml", {})


@pytest.mark.parametrize("text", ["key: [canary", "a: 'canary\nb: c: d", '"canary": "\\q"'])
def test_broken_yaml_is_not_quoted(tmp_path: Path, text: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        load(tmp_path, text)
    assert "canary" not in str(caught.value)


def test_a_wrong_secret_is_not_quoted(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as caught:
        load(tmp_path, changed(web__invite_secret={"canary": "canary"}))
    assert "canary" not in str(caught.value)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        GOOD,
        {
            "PARLEY__DATABASE__URL": "postgresql+asyncpg://h/d",
            "PARLEY__HTTP__PUBLIC__PORT": "9000",
            "PARLEY__HTTP__PUBLIC__HOST": "127.0.0.2",
            "PARLEY__XMPP__TLS": "true",
            "PARLEY__XMPP__SECRET": "01234567",  # stays text
            "PARLEY__MEDIA__ADVERTISE": "[192.0.2.1, '2001:db8::1']",
            "PARLEY__LIVEKIT__KEYS": f"[{{key: other, secret: {SECRET}}}]",
            "PARLEY__HTTP__TLS__CERT": "c.pem",
            "PARLEY__HTTP__TLS__KEY": "k.pem",
            "OTHER": "x",
        },
    )
    assert config.database.url == "postgresql+asyncpg://h/d"
    assert (config.http.public.host, config.http.public.port) == ("127.0.0.2", 9000)
    assert config.xmpp is not None
    assert config.xmpp.tls
    assert config.xmpp.secret.get_secret_value() == "01234567"
    assert config.media.advertise == ("192.0.2.1", "2001:db8::1")
    assert config.livekit.keys[0].key == "other"
    assert config.http.tls is not None
    assert config.http.tls.cert == Path("c.pem")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("PARLEY__DATABSE__URL", "PARLEY__DATABSE__URL: unknown key: did you mean `database`?"),
        ("PARLEY__DATABASE__ULR", "PARLEY__DATABASE__ULR: unknown key: did you mean `url`?"),
        ("PARLEY__DATABASE__URL__X", "PARLEY__DATABASE__URL__X: unknown key"),
        ("PARLEY__", "PARLEY__: unknown key"),
    ],
)
def test_an_unknown_variable_refuses_to_start(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        load(tmp_path, GOOD, {name: "x"})
    assert sentence in str(caught.value)


_trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(
            st.sampled_from([*Config.model_fields, "url", "keys", "host", "slug", "x"]),
            below,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_trees)
def test_whatever_the_file_holds_it_loads_or_says_why(
    tmp_path_factory: pytest.TempPathFactory, value: Any
) -> None:
    told: tuple[str, ...] = ()
    try:
        config = load(tmp_path_factory.mktemp("any"), value)
    except Misconfigured as why:
        told = why.problems
    else:
        assert not tuple(problems(config))
        return
    assert told
    assert not any("\n" in problem for problem in told)
