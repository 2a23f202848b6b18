"""What the routes share: who may see a service, classic pages, and the dependencies by name."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, Query, Request

from handoff_common.access import Permission, Principal, authorize
from handoff_common.errors import not_found
from handoff_common.http import header_value
from handoff_config import account_commands, service_commands
from handoff_config.contracts import Customer
from handoff_config.services import Service
from handoff_config.writes import Context, context, writing

Ctx = Annotated[Context, Depends(context)]
Reader = Annotated[Principal, Depends(authorize(Permission.READ_CONFIG))]
Configurer = Annotated[Principal, Depends(writing(Permission.WRITE_CONFIG))]
Toggler = Annotated[Principal, Depends(writing(Permission.TOGGLE_PRODUCTS))]
TokenOwner = Annotated[Principal, Depends(writing(Permission.MANAGE_OWN_TOKENS))]
UserManager = Annotated[Principal, Depends(writing(Permission.MANAGE_USERS))]
Operator = Annotated[Principal, Depends(writing(Permission.OPERATE))]
OperatorReader = Annotated[Principal, Depends(authorize(Permission.OPERATE))]
PerPage = Annotated[int, Query(ge=1, le=200)]
PageNumber = Annotated[int, Query(ge=1, le=1_000_000)]
Limit = Annotated[int, Query(ge=1, le=1_000)]

E = TypeVar("E")


def on_service(
    principal: Principal, service_id: str, command: Callable[[Service], Sequence[E]]
) -> Callable[[Service | None], Sequence[E]]:
    """The command on a service that the principal may see; 404 otherwise."""

    def decide(state: Service | None) -> Sequence[E]:
        return command(visible(principal, service_id, state))

    return decide


def visible(principal: Principal, service_id: str, state: Service | None) -> Service:
    service = service_commands.live(state, service_id)
    if not principal.may_see(service.customer_id):
        raise not_found("service", service_id)
    return service


async def service_for(ctx: Context, principal: Principal, service_id: str) -> Service:
    return visible(principal, service_id, await ctx.store.service(service_id))


def on_customer(
    principal: Principal, customer_id: str, command: Callable[[Customer], Sequence[E]]
) -> Callable[[Customer | None], Sequence[E]]:
    """The command on a customer that the principal may see; 404 otherwise."""

    def decide(state: Customer | None) -> Sequence[E]:
        return command(visible_customer(principal, customer_id, state))

    return decide


def visible_customer(principal: Principal, customer_id: str, state: Customer | None) -> Customer:
    if not principal.may_see(customer_id):
        raise not_found("customer", customer_id)
    return account_commands.live(state, customer_id)


async def customer_for(ctx: Context, principal: Principal, customer_id: str) -> Customer:
    state = await ctx.store.customer(customer_id) if principal.may_see(customer_id) else None
    return visible_customer(principal, customer_id, state)


async def customer_of_user(ctx: Context, principal: Principal, user_id: str) -> str:
    """Id of the user's customer; 404 where the user may not be seen."""
    customer_id = await ctx.store.customer_of_user(user_id)
    if customer_id is None or not principal.may_see(customer_id):
        raise not_found("user", user_id)
    return customer_id


def asking(principal: Principal) -> account_commands.Asking:
    return account_commands.Asking(str(principal.role), principal.user_id)


def link_header(request: Request, page: int, per_page: int, total: int) -> dict[str, str]:
    """The `Link` header of a classic list: first, prev, next, last."""
    last = max(1, -(-total // per_page))
    pages = {"first": 1, "prev": page - 1, "next": page + 1, "last": last}
    kept = [(k, v) for k, v in request.query_params.multi_items() if k not in ("page", "per_page")]

    def url(number: int) -> str:
        query = urlencode([*kept, ("page", number), ("per_page", per_page)])
        return f"{request.url.path}?{query}"

    links = [f'<{url(n)}>; rel="{rel}"' for rel, n in pages.items() if 1 <= n <= last]
    return {"link": ", ".join(links)}


def warning_header(warnings: Sequence[str]) -> dict[str, str]:
    """`x-handoff-warning`: what a draft of an enabled service should not have."""
    return {"x-handoff-warning": header_value("; ".join(warnings))} if warnings else {}


def page_of(items: Sequence[Any], page: int, per_page: int) -> Sequence[Any]:
    return items[(page - 1) * per_page : page * per_page]
