"""Every table, as SQLAlchemy Core; one definition for SQLite and PostgreSQL.

JSON is text that we encode ourselves (`values`): `\\u0000` and lone surrogates, which a peer may put into any
string, survive in escaped form, while PostgreSQL's own text and jsonb refuse them. Times are Unix milliseconds.
Not here: how the schema came to be (`migrations/versions`; a test compares both).
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

# SQLite counts up by itself only in an INTEGER primary key; PostgreSQL's integer would end at 2^31 rows.
_RowId: Final = BigInteger().with_variant(Integer(), "sqlite")

conferences: Final = Table(
    "conferences",
    metadata,
    Column("id", Text, primary_key=True),
    Column("slug", Text, nullable=False, unique=True),
    Column("room", Text, nullable=False, unique=True),
    Column("title", Text, nullable=False),
    Column("auto", Boolean, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("streams", Text),  # NULL until a moderator chooses
)

bindings: Final = Table(
    "bindings",
    metadata,
    Column("id", _RowId, primary_key=True),
    Column("conference", Text, ForeignKey("conferences.id"), nullable=False, index=True),
    Column("network", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("bound_ms", BigInteger, nullable=False),
    UniqueConstraint("network", "address"),
)

legs: Final = Table(
    "legs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("conference", Text, ForeignKey("conferences.id"), nullable=False, index=True),
    Column("gateway", Text, nullable=False),
    # NULL while the gateway has saved its notes but `Joined` is not committed yet.
    Column("leg", Text),
    Column("wire_state", Text),
    Column("joined_ms", BigInteger, nullable=False),
)

mutes: Final = Table(
    "mutes",
    metadata,
    Column("conference", Text, ForeignKey("conferences.id"), primary_key=True),
    Column("network", Text, primary_key=True),
    Column("address", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("ruled_ms", BigInteger, nullable=False),
)

inbox: Final = Table(
    "inbox",
    metadata,
    Column("id", _RowId, primary_key=True),
    Column("gateway", Text, nullable=False),
    Column("source_id", Text, nullable=False),
    Column("batch", Text, nullable=False),
    # NULL once done: what people wrote is not kept longer than its delivery needs.
    Column("payload", Text),
    Column("state", Text, nullable=False),
    Column("why", Text),
    Column("arrived_ms", BigInteger, nullable=False),
    UniqueConstraint("gateway", "source_id"),
    CheckConstraint("state IN ('new', 'done', 'dead')", name="state"),
    Index(None, "gateway", "state", "id"),
)

inbox_batches: Final = Table(
    "inbox_batches",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("batch", Text, primary_key=True),
    Column("arrived_ms", BigInteger, nullable=False),
)

messages: Final = Table(
    "messages",
    metadata,
    Column("id", Text, primary_key=True),
    Column("conference", Text, ForeignKey("conferences.id"), nullable=False),
    Column("source", Text, nullable=False),
    Column("source_id", Text, nullable=False),
    Column("said_ms", BigInteger, nullable=False),
    UniqueConstraint("source", "source_id"),
)

message_places: Final = Table(
    "message_places",
    metadata,
    Column("message", Text, ForeignKey("messages.id"), primary_key=True),
    Column("network", Text, primary_key=True),
    Column("address", Text, primary_key=True),
    Column("remote_id", Text, nullable=False),
    Index(None, "network", "address", "remote_id"),
)

outbox: Final = Table(
    "outbox",
    metadata,
    Column("id", _RowId, primary_key=True),
    Column("key", Text, nullable=False, unique=True),
    Column("conference", Text, ForeignKey("conferences.id"), nullable=False),
    Column("message", Text, ForeignKey("messages.id"), nullable=False),
    Column("network", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("said", Text),  # NULL once delivered, as in the inbox
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("remote_id", Text),
    Column("why", Text),
    Column("created_ms", BigInteger, nullable=False),
    CheckConstraint("state IN ('new', 'done', 'dead')", name="state"),
    Index(None, "network", "address", "state", "id"),
)

key_values: Final = Table(
    "key_values",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

audit: Final = Table(
    "audit",
    metadata,
    Column("id", _RowId, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    # No foreign key: the trail outlives what it is about.
    Column("conference", Text, nullable=False, index=True),
    Column("event", Text, nullable=False),
    Column("by", Text),
    Column("target", Text),
    Column("detail", Text, nullable=False),
)

epoch: Final = Table(
    "epoch",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("value", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

NEW: Final = "new"
DONE: Final = "done"
DEAD: Final = "dead"
