"""Addresses and display names of our own people in the XMPP world.

XEP-0045 (nicknames), RFC 8266 (nickname preparation, the part that Unicode data of the standard library
gives us), S38. A name from another network is untrusted text: it may not hide, reverse or pile up characters.
Not here: joining (`puppets`).
"""

import hashlib
import unicodedata
from collections.abc import Collection, Iterator
from typing import Final

from bridge.conference.ids import Account

MAX_NICK: Final = 60  # characters; MUC services differ, none refuses this
MAX_MARKS: Final = 3  # combining marks in a row (Zalgo text)
PUPPET_RESOURCE: Final = "parley"
FOCUS_RESOURCE: Final = "focus"


def puppet_node(account: Account) -> str:
    """Stable and opaque: the person's address on another network is not published through the JID."""
    return "g-" + hashlib.sha256(str(account).encode("utf-8", "replace")).hexdigest()[:20]


def clean_name(name: str) -> str:
    """NFKC, without control, format (bidi, zero-width), private and unassigned characters; one line."""
    kept: list[str] = []
    marks = 0
    for char in unicodedata.normalize("NFKC", name[: MAX_NICK * 8]):
        category = unicodedata.category(char)
        if category[0] == "M":
            marks += 1
            if marks > MAX_MARKS:
                continue
        else:
            marks = 0
        if category[0] == "Z":
            kept.append(" ")
        elif category[0] != "C":
            kept.append(char)
    return " ".join("".join(kept).split())[:MAX_NICK].strip()


def skeleton(name: str) -> str:
    """Names with one skeleton look alike to people who do not compare code points."""
    decomposed = unicodedata.normalize("NFKD", name).casefold()
    return "".join(c for c in decomposed if unicodedata.category(c)[0] in "LN").translate(
        _LOOKALIKES
    )


# The Cyrillic and Greek letters that imitate Latin ones (UTS 39 lists thousands; these carry names).
_LOOKALIKES: Final = str.maketrans(
    "авекмнорстухіјѕԁɡοαερικνυχτ0ı1l", "abekmhopctyxijsdgoaepikvuxtoiii"
)


def nick_for(account: Account, name: str) -> str:
    """The wished nickname: the cleaned display name, else the local part of the address."""
    return (
        clean_name(name)
        or clean_name(account.address.lstrip("@").split(":")[0].split("@")[0])
        or "guest"
    )


def candidates(nick: str, suffix: str, taken: Collection[str]) -> Iterator[str]:
    """Nicknames to try, best first; whatever looks like a present occupant's nickname is left out."""
    looks_taken = {skeleton(other) for other in taken}
    for number in range(1, 20):
        tail = "" if number == 1 else suffix if number == 2 else f"{suffix} {number - 1}"
        candidate = nick[: MAX_NICK - len(tail)] + tail
        if skeleton(candidate) not in looks_taken:
            yield candidate
