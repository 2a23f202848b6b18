"""What a customer's month will come to, and what each service has in it."""

from typing import Any

from fastapi import APIRouter

from handoff_billing import schemas_costs as s
from handoff_billing import views
from handoff_billing.callers import MonthQuery, Reader, known, month_given
from handoff_billing.directory import Directory
from handoff_billing.ledger import Ledger
from handoff_common.access import Principal
from handoff_common.errors import not_found


def routes(ledger: Ledger, directory: Directory) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["costs"])

    async def month_of_customer(principal: Principal, customer_id: str, month: str | None) -> int:
        if not principal.may_see(customer_id):
            raise not_found("customer", customer_id)
        await known(directory, customer_id)
        given = month_given(month, ledger)
        return ledger.current_month() if given is None else given

    @router.get("/customers/{customer_id}/forecast", response_model=s.ForecastOut)
    async def get_forecast(
        principal: Reader, customer_id: str, month: MonthQuery = None
    ) -> dict[str, Any]:
        """What a customer's month has come to so far, and what it is expected to end with; the
        current month unless given, none later."""
        month_ms = await month_of_customer(principal, customer_id, month)
        return views.forecast(await ledger.outlook(customer_id, month_ms))

    @router.get("/customers/{customer_id}/costs", response_model=s.CostsOut)
    async def get_costs(
        principal: Reader, customer_id: str, month: MonthQuery = None
    ) -> dict[str, Any]:
        """The month's invoice shared out over the services that caused it, to the last unit of the
        currency; the current month unless given, none later."""
        month_ms = await month_of_customer(principal, customer_id, month)
        return views.costs(await ledger.costs(customer_id, month_ms))

    return router
