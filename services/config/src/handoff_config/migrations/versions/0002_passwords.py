"""Passwords' hashes, and failed sign-ins."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "passwords",
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_passwords")),
    )
    op.create_table(
        "sign_in_failures",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("login_sha256", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_in_failures")),
    )
    with op.batch_alter_table("sign_in_failures", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_sign_in_failures_at_ms"), ["at_ms"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_sign_in_failures_login_sha256_at_ms"),
            ["login_sha256", "at_ms"],
            unique=False,
        )
        batch_op.create_index(
            batch_op.f("ix_sign_in_failures_source_at_ms"), ["source", "at_ms"], unique=False
        )


def downgrade() -> None:
    op.drop_table("sign_in_failures")
    op.drop_table("passwords")
