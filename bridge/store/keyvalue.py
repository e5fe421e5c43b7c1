"""Small durable key-value state of one gateway (`gateway.Store`)."""

from collections.abc import Mapping, Sequence

from sqlalchemy import delete, func, select

from bridge.store.database import Database
from bridge.store.statements import insert
from bridge.store.tables import key_values
from bridge.store.values import dumps, loads


class SqlKeyValue:
    """Keeps `gateway.Store`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, gateway: str, key: str) -> Mapping[str, object] | None:
        query = select(key_values.c.value).where(
            key_values.c.gateway == gateway, key_values.c.key == key
        )
        async with self._database.read() as db:
            value = (await db.execute(query)).scalar_one_or_none()
        return None if value is None else loads(value)

    async def put(self, gateway: str, key: str, value: Mapping[str, object]) -> None:
        text = dumps(value)
        async with self._database.write() as db:
            await db.execute(
                insert(db, key_values)
                .values(gateway=gateway, key=key, value=text)
                .on_conflict_do_update(
                    index_elements=[key_values.c.gateway, key_values.c.key], set_={"value": text}
                )
            )

    async def delete(self, gateway: str, key: str) -> None:
        async with self._database.write() as db:
            await db.execute(
                delete(key_values).where(key_values.c.gateway == gateway, key_values.c.key == key)
            )

    async def items(self, gateway: str, prefix: str) -> Sequence[tuple[str, Mapping[str, object]]]:
        # Not LIKE: SQLite's ignores case, and a prefix may hold its wildcards.
        query = (
            select(key_values.c.key, key_values.c.value)
            .where(
                key_values.c.gateway == gateway,
                func.substr(key_values.c.key, 1, len(prefix)) == prefix,
            )
            .order_by(key_values.c.key)
        )
        async with self._database.read() as db:
            return [(row.key, loads(row.value)) for row in await db.execute(query)]
