"""`/enabled-products`, the dry run, and the limits of a service.

A product is on or off for a service as a whole, at once and for all its versions.
"""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from handoff_common.access import Permission, owner_of
from handoff_common.conditional import check_match, etag
from handoff_config import products, schemas, service_commands, views
from handoff_config.routes.common import (
    Configurer,
    Ctx,
    Reader,
    Toggler,
    on_service,
    service_for,
)
from handoff_config.services import Service
from handoff_config.store import Answer
from handoff_config.streams import SERVICE

router = APIRouter()


def _add(product: str, prefix: str, *, documented: bool) -> None:
    one, many = f"{prefix}/services/{{service_id}}", f"{prefix}/services"

    async def listed(ctx: Ctx, principal: Reader, customer_id: str | None = None) -> Response:
        """The services that have the product. An operator may name a customer."""
        asked = owner_of(principal, customer_id)
        ids = await ctx.store.services_with(product, asked)
        return JSONResponse(views.product_services(product, asked, ids, many))

    async def got(service_id: str, ctx: Ctx, principal: Reader) -> Response:
        """400 `no product on service` where it is off."""
        service = await service_for(ctx, principal, service_id)
        if not service.enabled(product):
            raise products.not_enabled(product, service_id)
        return JSONResponse(views.product(product, service_id, _path(one, service_id)))

    async def enabled(service_id: str, request: Request, ctx: Ctx, principal: Toggler) -> Response:
        """Enable the product; enabled already is fine.

        400 `not entitled to enable` names whom to contact; 400 `not compatible` lists everything
        in the active version that stands against it.
        """
        service = await service_for(ctx, principal, service_id)
        customer = await ctx.store.customer(service.customer_id)
        contact = ctx.settings.sales_contact
        return await ctx.writer.write(
            request,
            principal,
            SERVICE,
            service_id,
            on_service(
                principal,
                service_id,
                lambda s: products.enable(
                    s, product, customer, ctx.clock.now_ms(), contact=contact
                ),
            ),
            lambda _: Answer(views.product(product, service_id, _path(one, service_id))),
        )

    async def disabled(
        service_id: str,
        request: Request,
        ctx: Ctx,
        principal: Toggler,
        keep_open: Annotated[
            bool, Query(description="Leave open connections alone instead of closing them")
        ] = False,
    ) -> Response:
        """Disable the product, which also ends open connections; 204 also where it is off."""
        return await ctx.writer.write(
            request,
            principal,
            SERVICE,
            service_id,
            on_service(
                principal,
                service_id,
                lambda s: products.disable(s, product, keep_open=keep_open),
            ),
            lambda _: Answer(None, 204),
        )

    name = f"{product}{'' if documented else '_unversioned'}"
    add = router.add_api_route
    add(
        many,
        listed,
        methods=["GET"],
        name=f"list_{name}",
        response_model=schemas.ProductServices,
        tags=["products"],
        include_in_schema=documented,
    )
    add(
        one,
        got,
        methods=["GET"],
        name=f"get_{name}",
        response_model=schemas.ProductOut,
        tags=["products"],
        include_in_schema=documented,
    )
    add(
        one,
        enabled,
        methods=["PUT"],
        name=f"enable_{name}",
        response_model=schemas.ProductOut,
        tags=["products"],
        include_in_schema=documented,
    )
    add(
        one,
        disabled,
        methods=["DELETE"],
        name=f"disable_{name}",
        status_code=204,
        response_model=None,
        tags=["products"],
        include_in_schema=documented,
    )


def _path(pattern: str, service_id: str) -> str:
    return pattern.replace("{service_id}", service_id)


for _product in products.PRODUCTS:
    _add(_product, f"/enabled-products/v1/{_product}", documented=True)
    # Clients older than the versioned paths use these.
    _add(_product, f"/enabled-products/{_product}", documented=False)


@router.get(
    "/v1/services/{service_id}/websockets/check",
    response_model=schemas.Check,
    tags=["products"],
)
async def check_websockets(
    service_id: str, ctx: Ctx, principal: Reader, version: int | None = None
) -> Response:
    """What would stop WebSockets on this service: a dry run of enabling, for the active version or
    the one asked for. Nothing is changed."""
    service = await service_for(ctx, principal, service_id)
    number = service.active_version if version is None else version
    if number is not None:
        service_commands.version_of(service, number)
    customer = await ctx.store.customer(service.customer_id)
    may_toggle = principal.can(Permission.TOGGLE_PRODUCTS)
    view = views.check(
        service,
        customer,
        number,
        ctx.clock.now_ms(),
        may_toggle=may_toggle,
        contact=ctx.settings.sales_contact,
    )
    return JSONResponse(view)


@router.get("/v1/services/{service_id}/limits", response_model=schemas.LimitsOut, tags=["limits"])
async def get_limits(service_id: str, ctx: Ctx, principal: Reader) -> Response:
    view = views.limits(service_id, (await service_for(ctx, principal, service_id)).limits)
    return JSONResponse(view, headers={"etag": etag(view)})


@router.put("/v1/services/{service_id}/limits", response_model=schemas.LimitsOut, tags=["limits"])
async def put_limits(
    service_id: str,
    body: schemas.LimitsIn,
    request: Request,
    ctx: Ctx,
    principal: Configurer,
) -> Response:
    """Set all limits; what is left out goes back to its default."""
    wanted = service_commands.checked_limits(body.model_dump())

    def command(service: Service) -> service_commands.Events:
        check_match(request, views.limits(service_id, service.limits))
        return service_commands.set_limits(service, wanted)

    def answer(state: Service) -> Answer:
        view = views.limits(service_id, state.limits)
        return Answer(view, headers={"etag": etag(view)})

    return await ctx.writer.write(
        request, principal, SERVICE, service_id, on_service(principal, service_id, command), answer
    )
