"""The schema's history: alembic environment and revisions, run by `bridge.store.schema` only."""
