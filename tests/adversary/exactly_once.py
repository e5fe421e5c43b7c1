"""A parley in small, to be killed: a homeserver's transactions in, lines of a MUC out. Run by test_s29_inbox.

The "homeserver" repeats each transaction until it has seen an answer (a line in `answers`); the "MUC" is an
append-only file. Only the store stands between them.
"""

import asyncio
import os
import sys
from pathlib import Path

from bridge.conference.events import Said
from bridge.conference.ids import Account, Actor, Network, Place, Role
from bridge.conference.ports import Cause, ConferenceRecord
from bridge.config import Config
from bridge.store import Stores, open_store

TEXTS_PER_TRANSACTION = 4
ROOM = Place(Network.MATRIX, "!room:hs.test")
MUC = Place(Network.XMPP, "demo@muc.test")
BY = Actor(Account(Network.MATRIX, "@alice:hs.test"), Role.MEMBER, "Alice")


def append(path: Path, line: str) -> None:
    """One durable line: what a peer has seen stays seen."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{line}\n".encode())
    os.close(fd)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


async def homeserver(stores: Stores, folder: Path, total: int) -> None:
    """Sends each transaction until it is answered; sometimes once more than needed."""
    answers = folder / "answers"
    for number in range(len(lines(answers)), total // TEXTS_PER_TRANSACTION):
        first = number * TEXTS_PER_TRANSACTION
        events = [
            (f"$e{i}", {"text": f"line {i}"}) for i in range(first, first + TEXTS_PER_TRANSACTION)
        ]
        await stores.inbox.put("matrix", f"txn{number}", events)
        append(answers, str(number))
        if number % 3 == 0:
            await stores.inbox.put("matrix", f"txn{number}", events)  # the answer got lost
            await stores.inbox.put("matrix", f"again{number}", events)  # or a new id for old events


async def inbound(stores: Stores, record: ConferenceRecord) -> None:
    async for row in stores.inbox.rows("matrix"):
        said = Said(
            message_id=f"m{row.source_id}",
            by=BY,
            text=str(row.payload["text"]),
            source_id=row.source_id,
            source="matrix",
            origin=ROOM,
            avatar="",
            is_emote=False,
            at_ms=0,
        )
        await stores.journal.commit(record, [said], Cause(row.id))


async def outbound(stores: Stores, folder: Path, total: int) -> None:
    """Until every line is out and nothing waits. `confirmed` only paces the kills: one may fall just before it."""
    muc, seen = folder / "muc", 0
    while True:
        row = await stores.outbox.next(MUC)
        if row is None:
            if len(lines(muc)) >= total:
                return
            seen = await stores.outbox.wait(1, seen)
            continue
        await stores.outbox.begin(row.id)
        line = f"{row.key} {row.said.text}"
        if not (row.attempts and line in lines(muc)):  # look before sending again
            append(muc, line)
        await stores.outbox.confirm(row.id, f"stanza-{row.key}")
        append(folder / "confirmed", row.key)


async def main(folder: Path, url: str, total: int) -> None:
    config = Config.model_validate({"state_dir": folder, "database": {"url": url}})
    stores = await open_store(config)
    record = await stores.directory.by_slug("demo")
    if record is None:
        raise SystemExit("no conference")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(homeserver(stores, folder, total))
        reading = tasks.create_task(inbound(stores, record))
        await outbound(stores, folder, total)
        reading.cancel()
    await stores.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
