"""The settings of the billing service."""

from pathlib import Path

from pydantic import Field

from handoff_common.process import ProcessSettings
from handoff_common.settings import Settings


class BillingSettings(Settings):
    """Field `invoice_grace_s` is read from `HANDOFF_INVOICE_GRACE_S`, and so on."""

    invoice_grace_s: int = Field(
        86_400,
        ge=0,
        le=31 * 86_400,
        description="seconds after a month's end before its invoices may be final; 0 to 2678400",
    )
    invoice_series: str = Field(
        "INV",
        pattern=r"^[A-Z0-9]{1,12}$",
        description="first part of invoice numbers; 1 to 12 of A-Z and 0-9",
    )
    price_book_file: Path | None = Field(
        None,
        description="price book (JSON) for every customer without terms of its own, read at the "
        "first start only; without it the shipped example is used",
    )


class BillingProcess(ProcessSettings):
    """Where the service finds its log and database, and is found, as a process of its own."""

    billing_host: str = Field("127.0.0.1", description="address of billing's API")
    billing_port: int = Field(
        8003, ge=0, le=65_535, description="port of billing's API; 0 takes a free one"
    )
