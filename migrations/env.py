"""alembic's entry: migrate on the connection that `bridge.store.schema` hands in.

Not here: where the database is (configuration), so `alembic` on the command line has nothing to connect to;
use `parley migrate`.
"""

from alembic import context

from bridge.store.tables import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit(
        "run `parley migrate -c config.yaml`; alembic alone does not know the database"
    )

context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=True,  # SQLite changes a table by copying it
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
