"""Small durable key-value state of one gateway (`gateway.Store`)."""

from collections.abc import Mapping, Sequence


class SqlKeyValue:
    """Keeps `gateway.Store`."""

    async def get(self, gateway: str, key: str) -> Mapping[str, object] | None:
        raise NotImplementedError

    async def put(self, gateway: str, key: str, value: Mapping[str, object]) -> None:
        raise NotImplementedError

    async def delete(self, gateway: str, key: str) -> None:
        raise NotImplementedError

    async def items(self, gateway: str, prefix: str) -> Sequence[tuple[str, Mapping[str, object]]]:
        raise NotImplementedError
