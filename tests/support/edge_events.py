"""Snapshots and heads for tests of the edge, with defaults that make a handoff."""

from datetime import UTC, datetime
from typing import Any

from handoff_common.events import (
    BackendSnapshot,
    ContractSnapshot,
    CustomerData,
    CustomerSnapshot,
    EndConnection,
    EndConnectionData,
    HardCap,
    HardCapData,
    ServiceData,
    ServiceSnapshot,
)
from handoff_edge.head import Head, HeadReader

NOW = datetime(2026, 11, 10, 12, tzinfo=UTC)
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ENVELOPE: dict[str, Any] = {"id": "1", "source": "/config", "subject": "s", "time": NOW}


def contract(starts_at: datetime, ends_at: datetime | None = None) -> ContractSnapshot:
    return ContractSnapshot(
        contract_id="k", product="websockets", starts_at=starts_at, ends_at=ends_at
    )


def service(revision: int = 1, **changes: Any) -> ServiceSnapshot:
    data: dict[str, Any] = {
        "service_id": "svc",
        "customer_id": "cus",
        "name": "chat",
        "active_version": 3,
        "websockets_enabled": True,
        "domains": ("chat.example.com",),
        "backends": (BackendSnapshot(name="main", address="127.0.0.1", port=9000),),
        **changes,
    }
    return ServiceSnapshot(**ENVELOPE, data=ServiceData(revision=revision, **data))


def customer(revision: int = 1, **changes: Any) -> CustomerSnapshot:
    data: dict[str, Any] = {
        "customer_id": "cus",
        "name": "Example",
        "account_type": "paid",
        "contracts": (contract(datetime(2026, 1, 1, tzinfo=UTC)),),
        **changes,
    }
    return CustomerSnapshot(**ENVELOPE, data=CustomerData(revision=revision, **data))


def cap(*, on: bool = True, end_open: bool = False, customer_id: str = "cus") -> HardCap:
    return HardCap(**ENVELOPE, data=HardCapData(customer_id=customer_id, on=on, end_open=end_open))


def end_connection(connection_id: str, expires_at: datetime, reason: str = "bye") -> EndConnection:
    return EndConnection(
        **ENVELOPE,
        data=EndConnectionData(
            connection_id=connection_id,
            customer_id="cus",
            service_id="svc",
            reason=reason,
            requested_by="eve",
            expires_at=expires_at,
        ),
    )


def request_bytes(
    host: str = "chat.example.com", target: str = "/", extra: str = "", key: str = KEY
) -> bytes:
    return (
        f"GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
    ).encode("latin-1")


def head(host: str = "chat.example.com", target: str = "/", extra: str = "") -> Head:
    found = HeadReader().feed(request_bytes(host, target, extra))
    assert found is not None
    return found[0]
