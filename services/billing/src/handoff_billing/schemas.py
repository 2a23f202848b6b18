"""The models of requests and answers under `/v1`, for parsing and for the OpenAPI document.

Money and priced quantities are decimal strings, counts (minutes, bytes, connections) are integers.
"""

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, Field

from handoff_common.http import StrictModel

Count = Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)]
DecimalText = Annotated[str, Field(examples=["0.25"], description="decimal string, no exponent")]
MonthText = Annotated[str, Field(examples=["2026-11"], description="UTC month")]


# --- Price books and terms (documented here, read by `pricebook` and `terms`) --------------------


class CurrencyIn(BaseModel):
    code: str = Field(examples=["USD"])
    exponent: int = Field(ge=0, le=4)


class TierIn(BaseModel):
    up_to: DecimalText | None = Field(None, description="inclusive; null in the last tier")
    unit_price: DecimalText


class PriceIn(BaseModel):
    """`per_unit` has unit_price; `graduated` and `volume` have tiers; `package` has package_size
    and package_price."""

    model: Literal["per_unit", "graduated", "volume", "package"]
    unit_price: DecimalText | None = None
    tiers: list[TierIn] | None = None
    package_size: DecimalText | None = None
    package_price: DecimalText | None = None


class PricesIn(BaseModel):
    """By billing region, with `*` for every region that has no entry."""

    connection_minutes: dict[str, PriceIn]
    delivery_bandwidth: dict[str, PriceIn]


class PriceBookIn(BaseModel):
    price_book_id: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    name: str
    effective_from: MonthText
    currency: CurrencyIn
    prices: PricesIn


class PriceBookOut(PriceBookIn):
    version: int


class CommitmentIn(BaseModel):
    amount: DecimalText
    overage_rate: DecimalText | None = Field(
        None, description="times the price for what goes beyond the amount; 1 if left out"
    )


class CouponIn(BaseModel):
    code: str
    percent: DecimalText | None = None
    amount: DecimalText | None = None


class TermsIn(BaseModel):
    price_book_id: str
    effective_from: MonthText
    discount_percent: DecimalText | None = None
    monthly_minimum: DecimalText | None = None
    commitment: CommitmentIn | None = None
    coupon: CouponIn | None = None


class TermsOut(TermsIn):
    """`default`: nothing was agreed with this customer, these hold for all such."""

    default: bool
    created_at: str
    created_by: str


class PricingOut(BaseModel):
    """What prices the customer's `month`: terms and the price book's version; `history` has the
    customer's own terms in the order in which they were given."""

    customer_id: str
    month: MonthText
    terms: TermsOut
    price_book: PriceBookOut
    history: list[TermsOut]


# --- Requests ------------------------------------------------------------------------------------


class FinalizeIn(StrictModel):
    force: bool = False
    reason: str | None = Field(
        None, min_length=1, max_length=1000, pattern=r"^[^\x00]*$", description="kept for ever"
    )


class SupposedIn(StrictModel):
    """websocket_bytes: sent by the edge, to clients and to origins. delivery_bytes: other."""

    region: str = Field("usa", min_length=1, max_length=64)
    minutes: Count = 0
    websocket_bytes: Count = 0
    delivery_bytes: Count = 0


class EstimateIn(StrictModel):
    """`month` prices that month's usage, `usage` what is supposed, both price their sum."""

    customer_id: str | None = None
    month: MonthText | None = None
    usage: list[SupposedIn] = Field(default=[], max_length=100)
    price_book_id: str | None = None
    price_book: dict[str, Any] | None = Field(None, description="a price book by value")
    terms: dict[str, Any] | None = Field(None, description="terms by value")


class DeliveryRowIn(StrictModel):
    """Absolute for this customer, region, hour and source."""

    customer_id: str = Field(min_length=1, max_length=64)
    region: str
    hour: AwareDatetime
    source: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    bytes: Count


class DeliveryIn(StrictModel):
    data: list[DeliveryRowIn] = Field(min_length=1, max_length=1000)


# --- Answers -------------------------------------------------------------------------------------


class TierOut(BaseModel):
    """The part of a line at one price: `quantity` units above `above`, up to `up_to`."""

    above: DecimalText
    up_to: DecimalText | None
    quantity: DecimalText
    unit_price: DecimalText
    exact: DecimalText


class CorrectsOut(BaseModel):
    """The line of another invoice that a line is about: `kind` is that line's, with the same
    product and region."""

    invoice: str = Field(description="the other invoice's number")
    period_start: str
    kind: str


class LineOut(BaseModel):
    """`exact` is what the prices give, `amount` that rounded once. `corrects`: of a line of kind
    `correction`, whose quantities and amount are by how much that line has changed, or of
    `carried_over`; else null. `connections`: the path at metering that lists the connections behind
    the line."""

    number: int
    kind: str
    description: str
    product: str
    region: str
    unit: str
    quantity: DecimalText
    raw_unit: str
    raw_quantity: int
    websocket_raw_quantity: int | None
    model: str
    unit_price: DecimalText | None
    tiers: list[TierOut]
    exact: DecimalText
    amount: DecimalText
    coupon_code: str | None
    corrects: CorrectsOut | None
    connections: str | None


class TotalsOut(BaseModel):
    """`corrections`: of earlier months, with what is carried from one invoice to the next."""

    usage: DecimalText
    adjustments: DecimalText
    corrections: DecimalText
    total: DecimalText


class HoldOut(BaseModel):
    code: str
    detail: str
    forceable: bool


class LateLineOut(BaseModel):
    kind: str
    product: str
    region: str
    raw_quantity: int
    amount: DecimalText


class LateOut(BaseModel):
    """What has come since the invoice was final, and no later one has billed. It never changes the
    invoice: it stands as corrections on that of `next_month`. That is null where there is no next
    invoice in this currency; then `POST /v1/invoices/{invoice_id}/correct` bills it."""

    amount: DecimalText
    lines: list[LateLineOut]
    next_month: MonthText | None


class CorrectedByOut(BaseModel):
    """A later invoice, and what its corrections of this one come to."""

    number: str
    amount: DecimalText


class InvoiceSummary(BaseModel):
    """`period_end` is the first instant after the month. `kind`: `correction` where the invoice was
    issued only to correct that of the period."""

    invoice_id: str
    kind: Literal["month", "correction"]
    status: Literal["draft", "final"]
    number: str | None
    customer_id: str
    customer_name: str
    period_start: str
    period_end: str
    currency: str
    total: DecimalText
    issued_at: str | None


class ForcedOut(BaseModel):
    reason: str
    overridden: list[dict[str, str]]


class FinalOut(BaseModel):
    content_hash: str
    previous_chain_hash: str
    chain_hash: str
    positions: dict[str, int]
    through: dict[str, str]
    finalized_by: str
    forced: ForcedOut | None


class InvoiceOut(InvoiceSummary):
    """holds: what keeps a draft from being final. late_usage, final: null for a draft.
    price_book_id, price_book_version: null where no prices are in force for the month; it then has
    no lines, and `no_price_book` among its holds."""

    price_book_id: str | None
    price_book_version: int | None
    minutes: int
    websocket_bytes: int
    lines: list[LineOut]
    totals: TotalsOut
    holds: list[HoldOut]
    late_usage: LateOut | None
    corrected_by: list[CorrectedByOut]
    final: FinalOut | None


class EstimateOut(BaseModel):
    """`month_total` and `difference`: the month without what is supposed, and what that adds; null
    unless both a month and usage were given."""

    currency: str
    price_book_id: str
    price_book_version: int
    lines: list[LineOut]
    totals: TotalsOut
    month_total: DecimalText | None
    difference: DecimalText | None


class UsageRowOut(BaseModel):
    service_id: str
    region: str
    hour: str
    minutes: int
    req_header_bytes: int
    req_body_bytes: int
    resp_header_bytes: int
    resp_body_bytes: int
    bereq_header_bytes: int
    bereq_body_bytes: int
    beresp_header_bytes: int
    beresp_body_bytes: int
    opened: int
    closed: int
    lost: int


class DeliveryRowOut(BaseModel):
    region: str
    hour: str
    source: str
    bytes: int


class LineUsageOut(BaseModel):
    """One row behind a line: `kind` is `usage` or `delivery`. connections: the path at metering
    that lists the connections of a usage row."""

    kind: Literal["usage", "delivery"]
    usage: UsageRowOut | None = None
    delivery: DeliveryRowOut | None = None
    connections: str | None = None


class ProofLineOut(BaseModel):
    number: int
    connections: str | None
    usage: list[UsageRowOut]
    delivery: list[DeliveryRowOut]


class ProofOut(BaseModel):
    """`document`: the content; its RFC 8785 form has the SHA-256 `content_hash`. `chain_hash` is
    the SHA-256 of the RFC 8785 form of `link`."""

    invoice_id: str
    number: str
    document: dict[str, Any]
    content_hash: str
    link: dict[str, Any]
    chain_hash: str
    lines: list[ProofLineOut]


class AcceptedOut(BaseModel):
    accepted: int


def described(model: type[BaseModel]) -> dict[str, Any]:
    """For `openapi_extra`: a JSON body that the code reads by itself. Its parts are those of the
    answers, which the document has among its components."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
