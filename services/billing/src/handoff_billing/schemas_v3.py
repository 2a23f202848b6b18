"""The answers of `/billing/v3`, for the OpenAPI document: names and types as in Fastly's API."""

from pydantic import BaseModel

Number = int | float


class MonthToDateLine(BaseModel):
    """`rate` is absent where a line has several prices."""

    description: str
    amount: Number
    rate: Number = 0
    units: Number
    product_name: str
    product_group: str
    product_line: str
    region: str
    usage_type: str


class Line(MonthToDateLine):
    credit_coupon_code: str


class MonthToDate(BaseModel):
    customer_id: str
    invoice_id: str
    billing_start_date: str
    billing_end_date: str
    currency_code: str
    monthly_transaction_amount: str
    transaction_line_items: list[MonthToDateLine]


class Invoice(BaseModel):
    customer_id: str
    invoice_id: str
    invoice_posted_on: str
    billing_start_date: str
    billing_end_date: str
    statement_number: str
    currency_code: str
    monthly_transaction_amount: Number
    transaction_line_items: list[Line]


class Meta(BaseModel):
    """`next_cursor` is absent at the end."""

    limit: int
    total: int
    sort: str = ""
    next_cursor: str = ""


class Invoices(BaseModel):
    data: list[Invoice]
    meta: Meta


class UsageMetric(BaseModel):
    """`quantity` in priced units, `raw_quantity` in minutes or bytes. `last_updated_at`: the
    instant up to which metering vouches for the figures; absent before the first."""

    month: str
    usage_type: str
    name: str
    region: str
    unit: str
    quantity: Number
    raw_quantity: int
    product_id: str
    last_updated_at: str = ""


class UsageMetrics(BaseModel):
    customer_id: str
    data: list[UsageMetric]
    meta: Meta


class ServiceUsageMetric(BaseModel):
    customer_id: str
    service_id: str
    service_name: str
    usage_units: Number
    raw_quantity: int


class ServiceUsageDetails(BaseModel):
    customer_id: str
    start_time: str
    end_time: str
    usage_type: str
    unit: str
    details: list[ServiceUsageMetric]
    meta: Meta


class ServiceUsageMetrics(BaseModel):
    data: ServiceUsageDetails


class ServiceUsageType(BaseModel):
    product_id: str
    name: str


class ServiceUsageTypes(BaseModel):
    data: list[ServiceUsageType]
