"""How a room's moderators steer what of a call is forwarded, in words that are the same in every network.

A choice outlives the call; a rule without one is as configured.
Not here: who may (`policy`), what the rules are (`streams`), the configuration (`bridge.config`).
"""

from dataclasses import dataclass, replace
from typing import Final

from bridge.conference.commands import RuleStreams
from bridge.conference.errors import Refused
from bridge.conference.events import Event, StreamsRuled
from bridge.conference.ids import Actor
from bridge.conference.state import State
from bridge.conference.streams import (
    AS_CONFIGURED,
    MAX_LAST_N,
    MAX_LOUDEST,
    MAX_QUIET_VIDEO_S,
    StreamChoice,
    StreamPolicy,
    StreamRule,
)


@dataclass(frozen=True, slots=True)
class _Row:
    """How a rule is asked for and told. `most` 1 = on or off."""

    most: int
    example: str
    told: str
    off: str


_ROWS: Final = {
    StreamRule.LAST_N: _Row(
        MAX_LAST_N,
        "last-n 5",
        "everybody receives {} pictures at most, the latest speakers first",
        "everybody receives all pictures",
    ),
    StreamRule.QUIET_VIDEO: _Row(
        MAX_QUIET_VIDEO_S,
        "quiet-video 20",
        "a picture is held back after {} s of silence",
        "pictures of people who are silent are forwarded",
    ),
    StreamRule.AUDIENCE: _Row(
        1,
        "audience on",
        "of {} pictures are forwarded only while they speak",
        "there is no audience",
    ),
    StreamRule.LOUDEST: _Row(
        MAX_LOUDEST,
        "loudest 3",
        "the {} loudest are heard",
        "everybody is heard",
    ),
}
USAGE: Final = "policy [last-n 5|quiet-video 20|audience on|loudest 3|default]"
DEFAULT: Final = "default"
_NUMBERS: Final = {"off": 0, "on": 1}


def rule(state: State, command: RuleStreams) -> tuple[Event, ...]:
    """Nothing when it is so already. Raises `Refused` when a number is out of bounds."""
    choice = AS_CONFIGURED
    if command.rule is not None:
        if command.value is not None and not 0 <= command.value <= _ROWS[command.rule].most:
            raise Refused(_bad(command.rule))
        choice = _put(state.record.streams, command.rule, command.value)
    if choice == state.record.streams:
        return ()
    return (StreamsRuled(choice, command.rule, command.value, command.by),)


def _put(choice: StreamChoice, of: StreamRule, value: int | None) -> StreamChoice:
    match of:
        case StreamRule.LAST_N:
            return replace(choice, last_n=value)
        case StreamRule.QUIET_VIDEO:
            return replace(choice, quiet_video_s=value)
        case StreamRule.AUDIENCE:
            return replace(choice, audience=None if value is None else bool(value))
        case StreamRule.LOUDEST:
            return replace(choice, loudest=value)


def parse(by: Actor, words: str) -> RuleStreams:
    """`last-n 5` or `audience default` or `default`, as typed. Raises `Refused` with an example."""
    name, _, value = words.strip().casefold().partition(" ")
    value = value.strip()
    if name == DEFAULT and not value:
        return RuleStreams(by, None, None)
    known = next((one for one in StreamRule if one.value == name), None)
    if known is None:
        names = ", ".join(one.value for one in StreamRule)
        raise Refused(f"I know these rules: {names}. For example: last-n 5, or last-n default.")
    if value == DEFAULT:
        return RuleStreams(by, known, None)
    is_switch = _ROWS[known].most == 1
    number = _NUMBERS.get(value) if is_switch or value == "off" else _number(value)
    if number is None:
        raise Refused(_bad(known))
    return RuleStreams(by, known, number)


def _number(text: str) -> int | None:
    is_one = text.isascii() and text.isdigit() and len(text) <= 9
    return int(text) if is_one else None


def _bad(of: StreamRule) -> str:
    row = _ROWS[of]
    values = "on, off" if row.most == 1 else f"a number from 0 (off) to {row.most}"
    return f"{of.value} takes {values} or default. For example: {row.example}"


def describe(choice: StreamChoice, configured: StreamPolicy) -> str:
    """Every rule in force, one a line, and where it comes from."""
    lines = []
    for one, text in _told(choice.over(configured)).items():
        is_chosen = _put(choice, one, None) != choice
        lines.append(f"{one.value}: {text} ({'chosen here' if is_chosen else 'as configured'}).")
    return "\n".join(lines)


def news(event: StreamsRuled, configured: StreamPolicy) -> str:
    """What a room is told of a change, after the name of who made it."""
    if event.rule is None:
        return "put the call's policy back to what is configured."
    text = _told(event.choice.over(configured))[event.rule]
    suffix = " (as configured)" if event.value is None else ""
    return f"changed the call's policy: {text}{suffix}."


def _told(policy: StreamPolicy) -> dict[StreamRule, str]:
    audience = " and ".join(f"{role.name.lower()}s" for role in sorted(policy.audience))
    values: dict[StreamRule, object] = {
        StreamRule.LAST_N: policy.last_n,
        StreamRule.QUIET_VIDEO: f"{policy.quiet_video_s:g}" if policy.quiet_video_s else 0,
        StreamRule.AUDIENCE: audience,
        StreamRule.LOUDEST: policy.loudest,
    }
    return {
        one: _ROWS[one].told.format(value) if value else _ROWS[one].off
        for one, value in values.items()
    }
