"""Who calls, and what they may see: shared by billing's API modules."""

from typing import Annotated

from fastapi import Depends, Query

from handoff_billing.directory import Directory
from handoff_billing.instants import month_ms, month_text
from handoff_billing.ledger import Ledger
from handoff_billing.store.invoices import Month
from handoff_common.access import Permission, Principal, authorize
from handoff_common.errors import FieldError, forbidden, invalid, not_found

Reader = Annotated[Principal, Depends(authorize(Permission.READ_BILLING))]
Anyone = Annotated[Principal, Depends(authorize(Permission.READ_CONFIG))]
Operator = Annotated[Principal, Depends(authorize(Permission.OPERATE))]
Limit = Annotated[int, Query(ge=1, le=100)]
MonthQuery = Annotated[str | None, Query(description="UTC month, such as 2026-11")]


def actor(principal: Principal) -> str:
    """Who did it, for the record."""
    return principal.login or f"token {principal.token_id}"


def month_given(text: str | None, ledger: Ledger, name: str = "month") -> int | None:
    """A month from a query or body, none later than the current one."""
    if text is None:
        return None
    allowed = f"a UTC month such as '2026-11', at most {month_text(ledger.current_month())}"
    try:
        found = month_ms(text)
    except ValueError:
        found = None
    if found is None or found > ledger.current_month():
        raise invalid([FieldError(name, f"{text!r} is not {allowed}")])
    return found


async def visible(ledger: Ledger, principal: Principal, invoice_id: str) -> Month:
    """The month of an id, if the principal may see it."""
    month = await ledger.find(invoice_id)
    if month is None or not principal.may_see(month.customer_id):
        raise not_found("invoice", invoice_id)
    return month


async def known(directory: Directory, customer_id: str, *, name: str | None = None) -> None:
    """404 for a customer that config has not made; 422 naming the field where `name` is given."""
    if await directory.customer(customer_id) is None:
        if name is not None:
            raise invalid([FieldError(name, f"{customer_id!r} is not a customer")])
        raise not_found("customer", customer_id)


def operators_only(principal: Principal) -> None:
    if principal.customer_id is not None:
        raise forbidden(f"role {principal.role!r} may not do this; allowed: operator")
