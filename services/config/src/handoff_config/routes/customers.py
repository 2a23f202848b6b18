"""Customers and their contracts: `/v1/customers…`, `/current_customer`, `/customer/{id}`.

Customers are made and changed by operators; a contract is ended by its `ends_at`, never deleted.
"""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from handoff_common.conditional import check_match, etag
from handoff_common.errors import not_found
from handoff_common.http import Page, decode_cursor, encode_cursor
from handoff_common.ids import short_id, uuid7
from handoff_common.instants import to_ms
from handoff_config import account_commands, schemas, views
from handoff_config.contracts import Customer
from handoff_config.routes.common import (
    Ctx,
    Limit,
    Operator,
    OperatorReader,
    Reader,
    customer_for,
    on_customer,
)
from handoff_config.store import Answer
from handoff_config.streams import CUSTOMER

router = APIRouter(tags=["customers"])


def _answer(state: Customer, status: int = 200) -> Answer:
    view = views.customer(state)
    return Answer(view, status, headers={"etag": etag(view)})


def _contract_answer(state: Customer, contract_id: str, status: int = 200) -> Answer:
    view = views.contract(state.contracts[contract_id])
    return Answer(view, status, headers={"etag": etag(view)})


# --- Customers ---------------------------------------------------------------------------------


@router.post("/v1/customers", status_code=201, response_model=schemas.CustomerOut)
async def create_customer(
    body: schemas.CustomerIn, request: Request, ctx: Ctx, principal: Operator
) -> Response:
    customer_id = short_id()
    values = body.model_dump()
    return await ctx.writer.write(
        request,
        principal,
        CUSTOMER,
        customer_id,
        lambda _: account_commands.create_customer(customer_id, values),
        lambda state: _answer(state, 201),
    )


@router.get("/v1/customers", response_model=Page[schemas.CustomerOut])
async def list_customers(
    ctx: Ctx, principal: OperatorReader, limit: Limit = 100, cursor: str | None = None
) -> Response:
    """Every customer, in the order they were made."""
    after = None
    if cursor is not None:
        created_ms, identifier = decode_cursor(cursor, [int, str])
        after = (created_ms, identifier)
    found = await ctx.store.customers(after, limit + 1)
    following = None
    if len(found) > limit:
        last = found[limit - 1]
        following = encode_cursor(last.created_ms, last.customer_id)
    data = [views.customer(customer) for customer in found[:limit]]
    return JSONResponse({"data": data, "meta": {"limit": limit, "next_cursor": following}})


@router.get("/v1/customers/{customer_id}", response_model=schemas.CustomerOut)
async def get_customer(customer_id: str, ctx: Ctx, principal: Reader) -> Response:
    view = views.customer(await customer_for(ctx, principal, customer_id))
    return JSONResponse(view, headers={"etag": etag(view)})


@router.patch("/v1/customers/{customer_id}", response_model=schemas.CustomerOut)
async def change_customer(
    customer_id: str,
    body: schemas.CustomerChange,
    request: Request,
    ctx: Ctx,
    principal: Operator,
) -> Response:
    """Change name, account type or billing address, or suspend the account."""
    values = body.model_dump(exclude_unset=True)

    def command(customer: Customer) -> account_commands.Events:
        check_match(request, views.customer(customer))
        return account_commands.update_customer(customer, values)

    return await ctx.writer.write(
        request,
        principal,
        CUSTOMER,
        customer_id,
        on_customer(principal, customer_id, command),
        _answer,
    )


@router.delete("/v1/customers/{customer_id}", status_code=204, response_model=None)
async def delete_customer(
    customer_id: str, request: Request, ctx: Ctx, principal: Operator
) -> Response:
    """Delete a customer that has no services; its users go and its tokens are revoked."""
    services = await ctx.store.count_services(customer_id)
    return await ctx.writer.write(
        request,
        principal,
        CUSTOMER,
        customer_id,
        on_customer(
            principal,
            customer_id,
            lambda customer: account_commands.delete_customer(customer, services),
        ),
        lambda _: Answer(None, 204),
    )


@router.get("/current_customer", response_model=schemas.ClassicCustomerOut)
async def get_current_customer(ctx: Ctx, principal: Reader) -> Response:
    """Whose token the request bears; 404 for an operator's, which belongs to no customer."""
    if principal.customer_id is None:
        raise not_found("customer of an operator's token", principal.token_id)
    customer = await customer_for(ctx, principal, principal.customer_id)
    return JSONResponse(views.classic_customer(customer))


@router.get("/customer/{customer_id}", response_model=schemas.ClassicCustomerOut)
async def get_classic_customer(customer_id: str, ctx: Ctx, principal: Reader) -> Response:
    return JSONResponse(views.classic_customer(await customer_for(ctx, principal, customer_id)))


# --- Contracts ---------------------------------------------------------------------------------


@router.post(
    "/v1/customers/{customer_id}/contracts", status_code=201, response_model=schemas.ContractOut
)
async def create_contract(
    customer_id: str,
    body: schemas.ContractIn,
    request: Request,
    ctx: Ctx,
    principal: Operator,
) -> Response:
    """A contract for a product, in force for `starts_at <= now < ends_at`."""
    contract_id = uuid7()
    ends_ms = None if body.ends_at is None else to_ms(body.ends_at)
    return await ctx.writer.write(
        request,
        principal,
        CUSTOMER,
        customer_id,
        on_customer(
            principal,
            customer_id,
            lambda customer: account_commands.create_contract(
                customer, contract_id, body.product, to_ms(body.starts_at), ends_ms
            ),
        ),
        lambda state: _contract_answer(state, contract_id, 201),
    )


@router.get("/v1/customers/{customer_id}/contracts", response_model=Page[schemas.ContractOut])
async def list_contracts(
    customer_id: str, ctx: Ctx, principal: Reader, limit: Limit = 100, cursor: str | None = None
) -> Response:
    """The customer's contracts, past ones too, in the order they were made."""
    customer = await customer_for(ctx, principal, customer_id)
    after = "" if cursor is None else decode_cursor(cursor, [str])[0]
    found = sorted(key for key in customer.contracts if key > after)
    data = [views.contract(customer.contracts[key]) for key in found[:limit]]
    following = encode_cursor(found[limit - 1]) if len(found) > limit else None
    return JSONResponse({"data": data, "meta": {"limit": limit, "next_cursor": following}})


@router.get(
    "/v1/customers/{customer_id}/contracts/{contract_id}", response_model=schemas.ContractOut
)
async def get_contract(customer_id: str, contract_id: str, ctx: Ctx, principal: Reader) -> Response:
    customer = await customer_for(ctx, principal, customer_id)
    view = views.contract(account_commands.contract_of(customer, contract_id))
    return JSONResponse(view, headers={"etag": etag(view)})


@router.patch(
    "/v1/customers/{customer_id}/contracts/{contract_id}", response_model=schemas.ContractOut
)
async def change_contract(
    customer_id: str,
    contract_id: str,
    body: schemas.ContractChange,
    request: Request,
    ctx: Ctx,
    principal: Operator,
) -> Response:
    """Change when a contract starts or ends."""
    given = body.model_dump(exclude_unset=True)
    changes: dict[str, Any] = {}
    if "starts_at" in given:
        changes["starts_ms"] = to_ms(given["starts_at"])
    if "ends_at" in given:
        changes["ends_ms"] = None if given["ends_at"] is None else to_ms(given["ends_at"])

    def command(customer: Customer) -> account_commands.Events:
        contract = account_commands.contract_of(customer, contract_id)
        check_match(request, views.contract(contract))
        return account_commands.update_contract(customer, contract_id, changes)

    return await ctx.writer.write(
        request,
        principal,
        CUSTOMER,
        customer_id,
        on_customer(principal, customer_id, command),
        lambda state: _contract_answer(state, contract_id),
    )
