"""Durable state in SQL: SQLite by default, PostgreSQL for real deployments (house.md section 7).

`open_store` gives one repository per aggregate; each keeps a Protocol of `bridge.conference.ports` or
`bridge.gateway`, returns core values and raises `Unavailable` when the database is away.
Not here: the schema's history (`migrations/`), who may do what (`bridge.conference`), ephemeral state.
"""

from bridge.store.stores import Stores, open_directory, open_store

__all__ = ["Stores", "open_directory", "open_store"]
