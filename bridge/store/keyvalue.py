"""Small durable key-value state of one gateway (`gateway.Store`)."""

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, delete, func, select

from bridge.store.database import Database
from bridge.store.statements import upsert
from bridge.store.tables import key_values
from bridge.store.values import dumps, loads

_IS_KEY: Final = (key_values.c.gateway == bindparam("owner")) & (
    key_values.c.key == bindparam("name")
)
_GET: Final = select(key_values.c.value).where(_IS_KEY)
_DELETE: Final = delete(key_values).where(_IS_KEY)


class SqlKeyValue:
    """Keeps `gateway.Store`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, gateway: str, key: str) -> Mapping[str, object] | None:
        which = {"owner": gateway, "name": key}
        value = await self._database.read(lambda db: db.execute(_GET, which).scalar_one_or_none())
        return None if value is None else loads(value)

    async def put(self, gateway: str, key: str, value: Mapping[str, object]) -> None:
        row = {"gateway": gateway, "key": key, "value": dumps(value)}
        await self._database.write(lambda db: db.execute(upsert(db, key_values, "value"), row))

    async def delete(self, gateway: str, key: str) -> None:
        which = {"owner": gateway, "name": key}
        await self._database.write(lambda db: db.execute(_DELETE, which))

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

        def read(db: Connection) -> list[tuple[str, Mapping[str, object]]]:
            return [(row.key, loads(row.value)) for row in db.execute(query)]

        return await self._database.read(read)
