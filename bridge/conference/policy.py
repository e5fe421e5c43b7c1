"""Who may do what: one table, role by command (S26). Every command passes `authorize` before anything else.

Roles come from the networks (Matrix power level, MUC affiliation, token grant); gateways verify them.
Not here: what a token's grants allow a leg (`can_publish`: roster), caps (each feature).
"""

from enum import Enum
from typing import Final

from bridge.conference.commands import (
    Bind,
    Command,
    End,
    Join,
    Leave,
    Mute,
    Publish,
    Remove,
    Rename,
    RuleStreams,
    Say,
    SetLegState,
    SetMuted,
    Unbind,
    Unmute,
    Unpublish,
)
from bridge.conference.errors import Refused
from bridge.conference.ids import Account, Actor, Role
from bridge.conference.state import State


class Verdict(Enum):
    """An entry of the table, weakest first."""

    NEVER = 0
    BELOW = 1  # only towards somebody in the call who ranks MEMBER or lower
    IN_CALL = 2  # only while in the call
    ALWAYS = 3


_N, _B, _C, _A = Verdict.NEVER, Verdict.BELOW, Verdict.IN_CALL, Verdict.ALWAYS

# About oneself, or the worker's word: the gateway has proven who it is, rank does not matter.
_OWN: Final = (_A, _A, _A, _A)

TABLE: Final[dict[type[Command], tuple[Verdict, Verdict, Verdict, Verdict]]] = {
    # command: (GUEST, MEMBER, MODERATOR, OWNER)
    Join: _OWN,
    Leave: _OWN,
    SetLegState: _OWN,
    Rename: _OWN,
    Publish: _OWN,
    Unpublish: _OWN,
    SetMuted: _OWN,
    Say: (_C, _A, _A, _A),
    Mute: (_N, _N, _B, _A),
    Unmute: (_N, _N, _B, _A),
    Remove: (_N, _N, _B, _A),
    Bind: (_N, _N, _A, _A),
    Unbind: (_N, _N, _A, _A),
    RuleStreams: (_N, _N, _A, _A),
    End: (_N, _N, _A, _A),
}

_DEED: Final[dict[type[Command], str]] = {
    Say: "write here",
    Mute: "mute people",
    Unmute: "lift a mute",
    Remove: "remove people from the call",
    Bind: "connect rooms",
    Unbind: "disconnect rooms",
    RuleStreams: "change the call's policy",
    End: "end the call",
}


def verdict(command: type[Command], role: Role) -> Verdict:
    return TABLE[command][role]


def authorize(state: State, command: Command) -> None:
    """Raises `Refused` with a sentence for the person who asked."""
    match command:
        case Mute(by, target) | Unmute(by, target) | Remove(by, target):
            _check(state, type(command), by, target)
        case Say(by) | Bind(by) | Unbind(by) | RuleStreams(by) | End(by):
            _check(state, type(command), by, None)
        case _:
            return  # a row of _OWN; the exhaustive test keeps this branch honest


def _check(state: State, command: type[Command], by: Actor, target: Account | None) -> None:
    deed = _DEED[command]
    match verdict(command, by.role):
        case Verdict.ALWAYS:
            return
        case Verdict.IN_CALL:
            if not state.is_in(by.account):
                raise Refused(f"Join the call first: guests can {deed} only while they are in it.")
        case Verdict.BELOW:
            _check_below(state, deed, by, target)
        case Verdict.NEVER:
            needed = next(role for role in Role if verdict(command, role) is not Verdict.NEVER)
            raise Refused(f"Only a {needed.name.lower()} of this room can {deed}.")


def _check_below(state: State, deed: str, by: Actor, target: Account | None) -> None:
    rank = None if target is None else state.rank_of(target)
    if target == by.account:
        # Otherwise a moderator could lift what an owner ruled about himself.
        rank = by.role if rank is None else max(rank, by.role)
    if rank is None:
        raise Refused(f"They are not in the call, so only an owner can {deed} there.")
    if rank > Role.MEMBER:
        raise Refused(f"They are a {rank.name.lower()}; only an owner can {deed} of that rank.")
