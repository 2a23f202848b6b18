"""What finds the corrections of final invoices. Nothing that the previous release uses is changed.

Every final month is looked at once: late rows came before there were corrections too, and the
previous release, while it still runs beside this one, marks none.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_STANDS = (
    "SELECT 1 FROM settlements "
    "WHERE invoice_id = NEW.invoice_id AND kind = NEW.kind AND about_id = NEW.about_id"
)


def upgrade() -> None:
    op.create_table(
        "settlements",
        sa.Column("invoice_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("about_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("customer_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["invoices.invoice_id"], name=op.f("fk_settlements_invoice_id")
        ),
        sa.ForeignKeyConstraint(
            ["about_id"], ["invoices.invoice_id"], name=op.f("fk_settlements_about_id")
        ),
        sa.PrimaryKeyConstraint("invoice_id", "kind", "about_id", name=op.f("pk_settlements")),
    )
    op.create_index(op.f("ix_settlements_about_id"), "settlements", ["about_id"])
    op.create_index(op.f("ix_settlements_customer_id_kind"), "settlements", ["customer_id", "kind"])
    op.create_table(
        "late_months",
        sa.Column("customer_id", sa.String(length=64), nullable=False),
        sa.Column("month_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("customer_id", "month_ms", name=op.f("pk_late_months")),
    )
    op.execute("INSERT INTO late_months SELECT customer_id, month_ms FROM invoices")
    if op.get_bind().dialect.name == "sqlite":
        for action in ("update", "delete"):
            op.execute(
                f"CREATE TRIGGER settlements_no_{action} BEFORE {action.upper()} ON settlements "
                f"BEGIN SELECT RAISE(ABORT, 'settlements is append-only: no {action}'); END"
            )
        # INSERT OR REPLACE deletes without firing the trigger above.
        op.execute(
            "CREATE TRIGGER settlements_no_replace BEFORE INSERT ON settlements "
            f"WHEN EXISTS ({_STANDS}) "
            "BEGIN SELECT RAISE(ABORT, 'settlements is append-only: no replace'); END"
        )
    else:
        op.execute(
            "CREATE TRIGGER settlements_append_only "
            "BEFORE UPDATE OR DELETE OR TRUNCATE ON settlements "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )


def downgrade() -> None:
    op.drop_table("late_months")
    op.drop_table("settlements")
