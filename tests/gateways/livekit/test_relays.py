"""TURN credentials: what coturn will compute, and nothing that lasts (S17)."""

import base64
import hashlib
import hmac

from pydantic import SecretStr

from bridge.config import TurnSection
from bridge.gateways.livekit.relays import ice_servers

SECRET = "a secret of more than thirty-two bytes!"
TURN = TurnSection(
    urls=("turn:t.test:3478", "turns:t.test:5349?transport=tcp"), secret=SecretStr(SECRET)
)


def test_the_user_name_carries_the_expiry_and_the_password_signs_it() -> None:
    (server,) = ice_servers(TURN, "leg1", 1_000_000.9)
    assert list(server.urls) == list(TURN.urls)
    assert server.username == "1000300:leg1"
    expected = hmac.new(SECRET.encode(), b"1000300:leg1", hashlib.sha1).digest()
    assert base64.b64decode(server.credential) == expected


def test_each_leg_and_each_time_has_its_own() -> None:
    credentials = {
        ice_servers(TURN, leg, now)[0].credential for leg in ("a", "b") for now in (1.0, 2.0)
    }
    assert len(credentials) == 4


def test_without_a_server_nothing_is_told() -> None:
    assert ice_servers(None, "leg1", 1.0) == []
