"""Projects replace the secret that their webhooks are signed with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("projects", sa.Column("webhook_rotation", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("projects", sa.Column("webhook_overlap_until", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("projects", "webhook_overlap_until")
    op.drop_column("projects", "webhook_rotation")
