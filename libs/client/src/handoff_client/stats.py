"""`/stats`: statistics in the classic shape, for charts."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Generic, Literal, TypeVar

import msgspec
from msgspec import field

from handoff_client.answer import Answer, json_of
from handoff_client.call import Call, Reply, Value, call

By = Literal["minute", "hour", "day"]
T = TypeVar("T")
_LATEST = 253_402_300_799
"""The last second of the year 9999: what a datetime can hold."""


class StatsRow(Answer, frozen=True, kw_only=True):
    """One period. websocket_conn_time_ms: owed minutes × 60,000. requests: connections accepted.
    bandwidth: the bytes that count as delivery. service_id: None in sums over services."""

    start_seconds: Annotated[int, msgspec.Meta(ge=0, le=_LATEST)] = field(name="start_time")
    service_id: str | None = None
    websocket_req_header_bytes: int
    websocket_req_body_bytes: int
    websocket_resp_header_bytes: int
    websocket_resp_body_bytes: int
    websocket_bereq_header_bytes: int
    websocket_bereq_body_bytes: int
    websocket_beresp_header_bytes: int
    websocket_beresp_body_bytes: int
    websocket_conn_time_ms: int
    requests: int
    bandwidth: int

    @property
    def start(self) -> datetime:
        return datetime.fromtimestamp(self.start_seconds, UTC)


class RegionTotals(Answer, frozen=True, kw_only=True):
    bandwidth: int
    requests: int


class ServiceMonth(Answer, frozen=True, kw_only=True):
    """A service's month, by region."""

    name: str
    regions: dict[str, RegionTotals]


class Month(Answer, frozen=True, kw_only=True):
    """services: by id. total: by region."""

    customer_id: str
    services: dict[str, ServiceMonth]
    total: dict[str, RegionTotals]


class _Envelope(Answer, Generic[T], frozen=True, kw_only=True):
    data: T


class _Month(Answer, frozen=True, kw_only=True):
    """As it is sent: among a service's regions stands its name."""

    customer_id: str
    services: dict[str, dict[str, RegionTotals | str]]
    total: dict[str, RegionTotals]


def of_service(
    service_id: str,
    *,
    by: By = "day",
    from_: datetime | None = None,
    to: datetime | None = None,
    region: str | None = None,
) -> Call[tuple[StatsRow, ...]]:
    """One service. by minute: for the last two hours. from_ counts from the start of the period
    that holds it, to is exclusive."""
    return call(
        "GET",
        "/stats/service/{service_id}",
        _inside(json_of(_Envelope[tuple[StatsRow, ...]])),
        query=_range(by, from_, to, region),
        service_id=service_id,
    )


def by_service(
    *,
    by: By = "day",
    from_: datetime | None = None,
    to: datetime | None = None,
    region: str | None = None,
    customer_id: str | None = None,
) -> Call[dict[str, tuple[StatsRow, ...]]]:
    """Each service that had any by its id. customer_id: operators may name one."""
    read = _inside(json_of(_Envelope[dict[str, tuple[StatsRow, ...]]]))
    query = _range(by, from_, to, region) | {"customer_id": customer_id}
    return call("GET", "/stats", read, query=query)


def aggregate(
    *,
    by: By = "day",
    from_: datetime | None = None,
    to: datetime | None = None,
    region: str | None = None,
    customer_id: str | None = None,
) -> Call[tuple[StatsRow, ...]]:
    """All services together. customer_id: operators may name one."""
    query = _range(by, from_, to, region) | {"customer_id": customer_id}
    return call(
        "GET", "/stats/aggregate", _inside(json_of(_Envelope[tuple[StatsRow, ...]])), query=query
    )


def regions() -> Call[tuple[str, ...]]:
    """The billing regions."""
    return call("GET", "/stats/regions", _inside(json_of(_Envelope[tuple[str, ...]])))


def month(
    *, year: int | None = None, month: int | None = None, customer_id: str | None = None
) -> Call[Month]:
    """A month's bandwidth and requests, the current one where none is named."""
    read = json_of(_Envelope[_Month])

    def shaped(reply: Reply) -> Month:
        sent = read(reply).data
        services = {
            service_id: ServiceMonth(
                name=str(rows.get("name", "")),
                regions={k: v for k, v in rows.items() if isinstance(v, RegionTotals)},
            )
            for service_id, rows in sent.services.items()
        }
        return Month(customer_id=sent.customer_id, services=services, total=sent.total)

    query = {"year": year, "month": month, "customer_id": customer_id}
    return call("GET", "/stats/usage_by_month", shaped, query=query)


def _range(
    by: By, from_: datetime | None, to: datetime | None, region: str | None
) -> dict[str, Value]:
    return {"by": by, "from": from_, "to": to, "region": region}


def _inside(read: Callable[[Reply], _Envelope[T]]) -> Callable[[Reply], T]:
    return lambda reply: read(reply).data
