"""Billing's tables. Instants are epoch milliseconds (`*_ms`), documents are JSON text.

Two kinds stand here. `usage`, `progress` and `delivery` are projections of the log: they can be
dropped and built again. Price books, terms and invoices are billing's own truth: append-only, which
the database itself enforces by triggers (see the first migration).
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from handoff_common.database import NAMING, ExactDecimal, projection_tables
from handoff_common.events import COUNTER_NAMES
from handoff_common.outbox import outbox_table

metadata = MetaData(naming_convention=NAMING)
positions, parked = projection_tables(metadata)
outbox = outbox_table(metadata)

COUNTED: Final = ("minutes", *COUNTER_NAMES, "opened", "closed", "lost")
"""The summed columns of `usage`, in the order of `usage.Totals`."""

DEFAULT_CUSTOMER: Final = "*"
"""Owner of the terms that hold for every customer without terms of its own."""

APPEND_ONLY: Final = ("invoices", "price_books", "settlements", "terms")
"""Tables whose rows the database refuses to change or delete."""


def _identifier() -> Column[int]:
    return Column(
        "id",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    )


usage = Table(
    "usage",
    metadata,
    Column("customer_id", String(64), primary_key=True),
    Column("hour_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("service_id", String(64), primary_key=True),
    Column("region", String(64), primary_key=True),
    Column("slice", Integer, primary_key=True, autoincrement=False),
    Column("generation", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("record_offset", BigInteger, nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in COUNTED),
)

progress = Table(
    "progress",
    metadata,
    Column("slice", Integer, primary_key=True, autoincrement=False),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("slices", Integer, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("through_ms", BigInteger, nullable=False),
    Column("open_orphans", BigInteger, nullable=False),
    Column("parked", Text, nullable=False),
    Column("difference", BigInteger, nullable=False),
)

delivery = Table(
    "delivery",
    metadata,
    Column("customer_id", String(64), primary_key=True),
    Column("hour_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("region", String(64), primary_key=True),
    Column("source", String(64), primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
)

price_books = Table(
    "price_books",
    metadata,
    Column("price_book_id", String(64), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("effective_ms", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", String(255), nullable=False),
)

terms = Table(
    "terms",
    metadata,
    _identifier(),
    Column("customer_id", String(64), nullable=False),
    Column("effective_ms", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", String(255), nullable=False),
    Index(None, "customer_id", "effective_ms"),
    sqlite_autoincrement=True,
)

invoice_ids = Table(
    "invoice_ids",
    metadata,
    _identifier(),
    Column("customer_id", String(64), nullable=False),
    Column("month_ms", BigInteger, nullable=False),
    UniqueConstraint("customer_id", "month_ms"),
    sqlite_autoincrement=True,
)
"""The id of a customer's month, the same for its draft and its final invoice. `month_ms` is the
month's start. An invoice that is issued alone, to correct a month, stands beside that month's own:
the n-th has the n-th millisecond after the start."""

invoices = Table(
    "invoices",
    metadata,
    Column(
        "invoice_id",
        BigInteger,
        ForeignKey("invoice_ids.id"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("series", String(16), nullable=False),
    Column("number", String(48), nullable=False, unique=True),
    Column("customer_id", String(64), nullable=False),
    Column("customer_name", Text, nullable=False),
    Column("month_ms", BigInteger, nullable=False),
    Column("issued_ms", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("exponent", Integer, nullable=False),
    Column("total", ExactDecimal, nullable=False),
    Column("content", Text, nullable=False),
    Column("content_hash", String(64), nullable=False),
    Column("previous_chain_hash", String(64), nullable=False),
    Column("chain_hash", String(64), nullable=False),
    Column("positions", Text, nullable=False),
    Column("through", Text, nullable=False),
    Column("finalized_by", String(255), nullable=False),
    Column("forced_reason", Text),
    Column("overridden", Text, nullable=False),
    UniqueConstraint("customer_id", "month_ms"),
    Index(None, "month_ms"),
)
"""Final invoices, for ever. `overridden`: the holds that a forced finalization passed over."""

settlements = Table(
    "settlements",
    metadata,
    Column(
        "invoice_id",
        BigInteger,
        ForeignKey("invoices.invoice_id"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("kind", String(32), primary_key=True),
    Column(
        "about_id",
        BigInteger,
        ForeignKey("invoices.invoice_id"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("customer_id", String(64), nullable=False),
    Index(None, "about_id"),
    Index(None, "customer_id", "kind"),
)
"""Which invoice has lines of which `kind` (correction, carried_over, carried_forward) about which
other one; an invoice's carried_forward is about itself. The lines themselves are in the contents:
this only finds them."""

late_months = Table(
    "late_months",
    metadata,
    Column("customer_id", String(64), primary_key=True),
    Column("month_ms", BigInteger, primary_key=True, autoincrement=False),
)
"""Final months of which rows have come since their last invoice: they may have to be corrected.
Whoever writes rows adds them, whoever bills or finds nothing to bill takes them away."""

series = Table(
    "series",
    metadata,
    Column("series", String(16), primary_key=True),
    Column("chain_hash", String(64), nullable=False),
)
"""The last link of each series' chain. Whoever finalizes holds this row until its commit."""

counters = Table(
    "counters",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""Numbers given out, in the transaction that uses them: so none is lost and none comes twice."""
