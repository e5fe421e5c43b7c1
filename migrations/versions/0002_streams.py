"""What moderators chose of a conference's stream policy.

Revision: 0002
After: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("conferences", sa.Column("streams", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("conferences", "streams")
