"""What peers are told of our addresses: wildcards, filters, priorities (RFC 8445 section 5.1, RFC 6544 section 4)."""

import ipaddress
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu import ice, native, sdp
from sfu.ice import address_filter, host_candidates, offered

LOCAL = (
    ("lo", "127.0.0.1"),
    ("eth0", "192.0.2.7"),
    ("docker0", "172.17.0.1"),
    ("eth0", "169.254.3.4"),
    ("lo", "::1"),
    ("eth0", "fe80::1"),
    ("eth0", "2001:db8::7"),
    ("tun0", "fd00::7"),
)


@pytest.mark.parametrize(
    ("listen", "advertise", "allow", "deny", "told"),
    [
        (("127.0.0.1",), (), (), (), ("127.0.0.1",)),
        (("0.0.0.0",), (), (), (), ("192.0.2.7", "172.17.0.1")),
        (("::",), (), (), (), ("2001:db8::7", "fd00::7")),
        (("0.0.0.0", "::"), (), (), ("172.16.0.0/12", "fd00::/8"), ("192.0.2.7", "2001:db8::7")),
        (("0.0.0.0",), (), ("192.0.2.0/24",), (), ("192.0.2.7",)),
        (("0.0.0.0",), (), ("127.0.0.0/8",), (), ("127.0.0.1",)),
        (("0.0.0.0",), (), ("0.0.0.0/0",), ("192.0.2.7",), ("127.0.0.1", "172.17.0.1", "169.254.3.4")),
        (("192.0.2.7", "127.0.0.1"), (), (), ("127.0.0.0/8",), ("192.0.2.7",)),
        (("0.0.0.0",), ("198.51.100.1",), (), (), ("198.51.100.1",)),
        (("192.0.2.7", "0.0.0.0"), (), (), (), ("192.0.2.7", "172.17.0.1")),
        (("0.0.0.0",), (), (), ("0.0.0.0/0",), ()),
        (("0.0.0.0", "::"), (), (), ("docker*", "tun0"), ("192.0.2.7", "2001:db8::7")),
        (("0.0.0.0", "::"), (), ("eth?",), ("fe80::/10", "169.254.0.0/16"), ("192.0.2.7", "2001:db8::7")),
        (("192.0.2.7", "172.17.0.1"), (), (), ("docker*",), ("192.0.2.7",)),
    ],
)  # fmt: skip
def test_which_addresses_are_told(
    listen: tuple[str, ...],
    advertise: tuple[str, ...],
    allow: tuple[str, ...],
    deny: tuple[str, ...],
    told: tuple[str, ...],
) -> None:
    assert offered(listen, advertise, LOCAL, allow=allow, deny=deny) == told


@given(st.lists(st.ip_addresses(), max_size=8), st.ip_addresses(v=4), st.integers(0, 32))
def test_a_denied_network_is_never_told(
    local: list[ipaddress.IPv4Address | ipaddress.IPv6Address],
    ip: ipaddress.IPv4Address,
    bits: int,
) -> None:
    network = ipaddress.ip_network(f"{ip}/{bits}", strict=False)
    told = offered(
        ("0.0.0.0", "::"),
        (),
        tuple(("eth0", str(each)) for each in [*local, ip]),
        deny=(str(network),),
    )
    assert not any(ipaddress.ip_address(address) in network for address in told)
    assert set(told) <= {str(address) for address in local}


@given(st.text(max_size=20))
def test_a_filter_is_a_network_or_an_interface_or_an_error(text: str) -> None:
    try:
        is_meant = address_filter(text)
    except ValueError:
        return
    assert is_meant("eth0", ipaddress.ip_address("192.0.2.7")) in (True, False)
    assert "/" not in text or ipaddress.ip_network(text, strict=False)


def test_tcp_comes_after_udp_and_is_printed_as_browsers_read_it() -> None:
    told = host_candidates(("192.0.2.7", "2001:db8::7"), 8470, tcp=True)
    assert [c.protocol for c in told] == ["udp", "udp", "tcp", "tcp"]
    priorities = [c.priority for c in told]
    assert priorities == sorted(priorities, reverse=True)
    assert len({c.foundation for c in told}) == 4
    line = f"candidate:3 1 tcp {told[2].priority} 192.0.2.7 8470 typ host tcptype passive"
    assert sdp.parse_candidate(line) == told[2]
    assert all(c.protocol == "udp" for c in host_candidates(("192.0.2.7",), 8470))


def test_the_interfaces_of_this_machine_are_known() -> None:
    assert ("lo", "127.0.0.1") in native.local_addresses()


def test_a_worker_with_nothing_to_tell_does_not_start(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "sfu", "--socket", "s", "--lock", "l"]
    line += ["--listen", "0.0.0.0", "--deny", "0.0.0.0/0"]
    ended = subprocess.run(
        line,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 6
    assert b"no address is left to offer" in ended.stderr


def test_credentials_are_drawn_until_they_suit() -> None:
    drawn: list[str] = []

    def suits(ufrag: str) -> bool:
        drawn.append(ufrag)
        return len(drawn) == 5

    assert ice.new_credentials(suits).ufrag == drawn[-1]
    assert len(set(drawn)) == 5
    assert ice.new_credentials(lambda _: False).ufrag  # the engine says what it thinks of it


def test_transports_go_where_there_are_fewest_and_restarts_stay() -> None:
    plane = native.NativePlane(("127.0.0.1",), 0, shards=4)
    try:
        handles = []
        homes = []
        for _ in range(12):
            credentials = ice.new_credentials(plane.suits)
            handle = plane.open_transport(credentials.ufrag, credentials.pwd, offered_by_us=False)
            handles.append(handle)
            homes.append(plane._engine.shard_of(credentials.ufrag))
        assert [homes.count(home) for home in range(4)] == [3, 3, 3, 3]
        for handle, home in zip(handles, homes, strict=True):
            again = ice.new_credentials(lambda ufrag, of=handle: plane.suits(ufrag, of))  # type: ignore[misc]
            assert plane._engine.shard_of(again.ufrag) == home
            plane.restart_ice(handle, again.ufrag, again.pwd)
        for handle, home in zip(handles, homes, strict=True):
            if home == 2:
                plane.close_transport(handle)
        newcomer = ice.new_credentials(plane.suits)
        assert plane._engine.shard_of(newcomer.ufrag) == 2
    finally:
        plane.close()
