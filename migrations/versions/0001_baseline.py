"""Baseline: every table of the first release.

Revision: 0001
After: nothing
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("conference", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=True),
        sa.Column("target", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_conference"), "audit", ["conference"])
    op.create_table(
        "conferences",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("room", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("auto", sa.Boolean(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_conferences")),
        sa.UniqueConstraint("room", name=op.f("uq_conferences_room")),
        sa.UniqueConstraint("slug", name=op.f("uq_conferences_slug")),
    )
    op.create_table(
        "epoch",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_epoch_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_epoch")),
    )
    op.create_table(
        "inbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("source_id", sa.Text(), nullable=False),
        sa.Column("batch", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=True),
        sa.Column("arrived_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('new', 'done', 'dead')", name=op.f("ck_inbox_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbox")),
        sa.UniqueConstraint("gateway", "source_id", name=op.f("uq_inbox_gateway_source_id")),
    )
    op.create_index(op.f("ix_inbox_gateway_state_id"), "inbox", ["gateway", "state", "id"])
    op.create_table(
        "inbox_batches",
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("batch", sa.Text(), nullable=False),
        sa.Column("arrived_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("gateway", "batch", name=op.f("pk_inbox_batches")),
    )
    op.create_table(
        "key_values",
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("gateway", "key", name=op.f("pk_key_values")),
    )
    op.create_table(
        "bindings",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("conference", sa.Text(), nullable=False),
        sa.Column("network", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("bound_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["conference"], ["conferences.id"], name=op.f("fk_bindings_conference")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bindings")),
        sa.UniqueConstraint("network", "address", name=op.f("uq_bindings_network_address")),
    )
    op.create_index(op.f("ix_bindings_conference"), "bindings", ["conference"])
    op.create_table(
        "legs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("conference", sa.Text(), nullable=False),
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("leg", sa.Text(), nullable=True),
        sa.Column("wire_state", sa.Text(), nullable=True),
        sa.Column("joined_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["conference"], ["conferences.id"], name=op.f("fk_legs_conference")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_legs")),
    )
    op.create_index(op.f("ix_legs_conference"), "legs", ["conference"])
    op.create_table(
        "messages",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("conference", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("source_id", sa.Text(), nullable=False),
        sa.Column("said_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["conference"], ["conferences.id"], name=op.f("fk_messages_conference")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messages")),
        sa.UniqueConstraint("source", "source_id", name=op.f("uq_messages_source_source_id")),
    )
    op.create_table(
        "mutes",
        sa.Column("conference", sa.Text(), nullable=False),
        sa.Column("network", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("ruled_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["conference"], ["conferences.id"], name=op.f("fk_mutes_conference")
        ),
        sa.PrimaryKeyConstraint("conference", "network", "address", "kind", name=op.f("pk_mutes")),
    )
    op.create_table(
        "message_places",
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("network", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("remote_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["message"], ["messages.id"], name=op.f("fk_message_places_message")
        ),
        sa.PrimaryKeyConstraint("message", "network", "address", name=op.f("pk_message_places")),
    )
    op.create_index(
        op.f("ix_message_places_network_address_remote_id"),
        "message_places",
        ["network", "address", "remote_id"],
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("conference", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("network", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("said", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("remote_id", sa.Text(), nullable=True),
        sa.Column("why", sa.Text(), nullable=True),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('new', 'done', 'dead')", name=op.f("ck_outbox_state")),
        sa.ForeignKeyConstraint(
            ["conference"], ["conferences.id"], name=op.f("fk_outbox_conference")
        ),
        sa.ForeignKeyConstraint(["message"], ["messages.id"], name=op.f("fk_outbox_message")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("key", name=op.f("uq_outbox_key")),
    )
    op.create_index(
        op.f("ix_outbox_network_address_state_id"), "outbox", ["network", "address", "state", "id"]
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_outbox_network_address_state_id"), table_name="outbox")
    op.drop_table("outbox")
    op.drop_index(op.f("ix_message_places_network_address_remote_id"), table_name="message_places")
    op.drop_table("message_places")
    op.drop_table("mutes")
    op.drop_table("messages")
    op.drop_index(op.f("ix_legs_conference"), table_name="legs")
    op.drop_table("legs")
    op.drop_index(op.f("ix_bindings_conference"), table_name="bindings")
    op.drop_table("bindings")
    op.drop_table("key_values")
    op.drop_table("inbox_batches")
    op.drop_index(op.f("ix_inbox_gateway_state_id"), table_name="inbox")
    op.drop_table("inbox")
    op.drop_table("epoch")
    op.drop_table("conferences")
    op.drop_index(op.f("ix_audit_conference"), table_name="audit")
    op.drop_table("audit")
