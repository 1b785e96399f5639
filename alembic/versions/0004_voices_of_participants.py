"""Databases that the first form of 0002 made get the table `participant_voices`; others have it already.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if sa.inspect(op.get_bind()).has_table("participant_voices"):
        return
    op.create_table(
        "participant_voices",
        sa.Column("participant_id", sa.Integer(), nullable=False),
        sa.Column("person_id", sa.String(length=64), nullable=True),
        sa.Column("embedding", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["participant_id"],
            ["participants.id"],
            name=op.f("fk_participant_voices_participant_id_participants"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["person_id"], ["people.id"], name=op.f("fk_participant_voices_person_id_people"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("participant_id", name=op.f("pk_participant_voices")),
    )
    op.create_index(op.f("ix_participant_voices_person_id"), "participant_voices", ["person_id"], unique=False)
    op.execute(
        "INSERT INTO participant_voices (participant_id, person_id, embedding)"
        " SELECT id, person_id, voice FROM participants WHERE voice IS NOT NULL"
    )
    # Not in a batch: on SQLite that would copy the table, and dropping the old one would delete every segment with it.
    op.drop_index(op.f("ix_participants_person_id"), table_name="participants")
    op.drop_column("participants", "voice")
    op.drop_column("participants", "person_id")


def downgrade() -> None:
    """Nothing: 0003 needs the table as well."""
