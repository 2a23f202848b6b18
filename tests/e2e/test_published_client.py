"""The published Python client of the API whose shapes we keep, with only its host changed.

The client is synchronous, so it runs in a thread.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import fastly
import pytest
from fastly.api import (
    backend_api,
    billing_invoices_api,
    domain_api,
    historical_api,
    product_websockets_api,
    service_api,
    version_api,
)
from websockets.asyncio.client import connect

from support.embedded import Embedded, make_customer, make_tokens
from support.parts.waiting import eventually

pytestmark = pytest.mark.timeout(120)


def client(system: Embedded, token: str) -> fastly.ApiClient:
    configuration = fastly.Configuration(host=system.api_url)
    configuration.api_token = token
    return fastly.ApiClient(configuration)


async def test_the_published_client_works_with_only_its_host_changed(
    system: Embedded, echo_origin: int
) -> None:
    customer_id = await make_customer(system)
    tokens = await make_tokens(system, customer_id)

    def configure() -> str:
        with client(system, tokens["engineer"]) as api:
            services = service_api.ServiceApi(api)
            service = services.create_service(name="Chat", type="vcl")
            assert service.name == "Chat" and service.type == "vcl"
            versions = version_api.VersionApi(api)
            version = versions.create_service_version(service_id=service.id)
            number = version.number
            domain = domain_api.DomainApi(api).create_domain(
                service_id=service.id, version_id=number, name="client.example.com"
            )
            assert domain.name == "client.example.com"
            backends = backend_api.BackendApi(api)
            backend = backends.create_backend(
                service_id=service.id,
                version_id=number,
                name="origin",
                address="127.0.0.1",
                port=echo_origin,
                use_ssl=False,
            )
            assert backend.port == echo_origin and backend.use_ssl is False
            read = backends.get_backend(
                service_id=service.id, version_id=number, backend_name="origin"
            )
            settable = backends.update_backend_endpoint.params_map["all"]
            fields = {
                name: read.get(name)
                for name in read.to_dict()
                if name in settable and name not in ("service_id", "name")
            }
            backends.update_backend(
                service_id=service.id, version_id=number, backend_name="origin", **fields
            )
            clone = versions.clone_service_version(service_id=service.id, version_id=number)
            assert clone.number == number + 1
            assert versions.validate_service_version(
                service_id=service.id, version_id=number
            ).status
            active = versions.activate_service_version(service_id=service.id, version_id=number)
            assert active.active is True
            return str(service.id)

    service_id = await asyncio.to_thread(configure)

    def enable() -> Any:
        with client(system, tokens["engineer"]) as api:
            products = product_websockets_api.ProductWebsocketsApi(api)
            return products.enable_product_websockets(
                service_id=service_id, _check_return_type=False
            )

    await asyncio.to_thread(enable)

    async with connect(
        "ws://client.example.com/", host="127.0.0.1", port=system.edge_port, proxy=None
    ) as connection:
        await connection.send("hello")
        assert await connection.recv() == "hello"

    def statistics() -> Any:
        with client(system, tokens["user"]) as api:
            return historical_api.HistoricalApi(api).get_hist_stats_service(service_id=service_id)

    async def counted() -> Any:
        found = await asyncio.to_thread(statistics)
        rows = found.to_dict()["data"]
        total = sum(row.get("websocket_conn_time_ms") or 0 for row in rows)
        return found if total else None

    stats = await eventually(counted, "the statistics show the connection")
    assert stats.status == "success"

    async with system.api() as operator:
        query = {"customer_id": customer_id, "month": _last_month()[:7]}

        async def last_month() -> str | None:
            drafts = (await operator.call("GET", "/v1/invoices", query=query))["data"]
            return next((i["invoice_id"] for i in drafts if i["period_start"] == start), None)

        start = _last_month()
        invoice_id = await eventually(last_month, "there is a draft for last month")

        async def nothing_holds_it() -> bool:
            return not (await operator.call("GET", f"/v1/invoices/{invoice_id}"))["holds"]

        await eventually(nothing_holds_it, "metering has said that it is past last month")
        await operator.call("POST", f"/v1/invoices/{invoice_id}/finalize", {})

    def bill() -> None:
        with client(system, tokens["billing"]) as api:
            invoices = billing_invoices_api.BillingInvoicesApi(api)
            current = invoices.get_month_to_date_invoice()
            assert isinstance(current.monthly_transaction_amount, str)
            final = invoices.get_invoice_by_invoice_id(invoice_id=int(invoice_id))
            assert final.invoice_id == invoice_id
            assert final.statement_number and final.currency_code == "USD"
            listed = invoices.list_invoices().to_dict()["data"]
            assert [one["invoice_id"] for one in listed] == [invoice_id]

    await asyncio.to_thread(bill)


def _last_month() -> str:
    first = datetime.now(UTC).replace(day=1)
    return (first - timedelta(days=1)).strftime("%Y-%m-01T00:00:00Z")
