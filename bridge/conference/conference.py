"""One conference: commands in, events out. Dispatch only; the rules live one feature per file.

RFC 4353 section 3 (focus, conference policy); the time is an argument.
Not here: ordering, persistence, answering (`bridge.focus`).
"""

from collections.abc import Iterable, Sequence
from typing import assert_never

from bridge.conference import bindings, chat, mutes, roster, steering
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
from bridge.conference.events import Event, Leg
from bridge.conference.policy import authorize
from bridge.conference.ports import ConferenceRecord, Restored
from bridge.conference.state import State


class Conference:
    """Holds the current `State`. A command that raises has changed nothing."""

    def __init__(self, restored: Restored) -> None:
        self.state = State.of(restored)

    @property
    def record(self) -> ConferenceRecord:
        return self.state.record

    @property
    def legs(self) -> Sequence[Leg]:
        return tuple(self.state.legs.values())

    def apply(self, command: Command, now_ms: int) -> tuple[Event, ...]:
        """Decide and adopt. Raises `Refused`, `Malformed`, `IllegalTransition`."""
        events = self.decide(command, now_ms)
        self.adopt(events)
        return events

    def decide(self, command: Command, now_ms: int) -> tuple[Event, ...]:
        """What would come of it; nothing changes yet (text and bindings are committed first)."""
        authorize(self.state, command)
        return _decide(self.state, command, now_ms)

    def adopt(self, events: Iterable[Event]) -> None:
        self.state = self.state.after_all(events)


def _decide(state: State, command: Command, now_ms: int) -> tuple[Event, ...]:  # noqa: C901 - dispatch
    match command:
        case Join():
            return roster.join(state, command, now_ms)
        case Leave():
            return roster.leave(state, command)
        case SetLegState():
            return roster.set_leg_state(state, command)
        case Rename():
            return roster.rename(state, command)
        case Publish():
            return roster.publish(state, command)
        case Unpublish():
            return roster.unpublish(state, command)
        case SetMuted():
            return mutes.set_muted(state, command)
        case Mute():
            return mutes.mute(state, command)
        case Unmute():
            return mutes.unmute(state, command)
        case Remove():
            return roster.remove(state, command)
        case Say():
            return chat.say(state, command, now_ms)
        case Bind():
            return bindings.bind(state, command)
        case Unbind():
            return bindings.unbind(state, command)
        case RuleStreams():
            return steering.rule(state, command)
        case End():
            return roster.end(state, command)
        case _:
            assert_never(command)
