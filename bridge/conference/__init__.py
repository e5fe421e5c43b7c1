"""The rules of a conference: pure, no I/O, no clock. Read `commands` and `events` first, then `conference`.

RFC 4353 names the parts: conference, focus, participant, conference policy.
Not here: ordering (`bridge.focus`), wires (`bridge.gateways`), packets (`sfu`).
"""
