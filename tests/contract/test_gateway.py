"""The embedded system's one port: each path of each service reaches that service, and no other."""

import pytest

from handoff_standalone.gateway import service_of


@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("/service", "config"),
        ("/service/x/version/1/backend", "config"),
        ("/services", None),
        ("/enabled-products/v1/websockets/services/x", "config"),
        ("/tokens/self", "config"),
        ("/v1/customers", "config"),
        ("/v1/customers/x/contracts", "config"),
        ("/v1/customers/x/pricing", "billing"),
        ("/v1/customers/x/forecast", "billing"),
        ("/v1/customers/x/costs", "billing"),
        ("/v1/customers/x/costsheets", "config"),
        ("/v1/concurrency", "metering"),
        ("/v1/services/x/websockets/check", "config"),
        ("/stats/service/x", "metering"),
        ("/stats", "metering"),
        ("/v1/usage", "metering"),
        ("/v1/usages", None),
        ("/v1/parked", "metering"),
        ("/v1/parked/3/17/decision", "metering"),
        ("/v1/connections/x", "metering"),
        ("/v1/refusals", "metering"),
        ("/billing/v3/invoices/month-to-date", "billing"),
        ("/billing/docs", None),
        ("/v1/invoices/1/finalize", "billing"),
        ("/v1/estimates", "billing"),
        ("/etc/passwd", None),
    ],
)
def test_paths_reach_their_service(path: str, service: str | None) -> None:
    assert service_of(path) == service
