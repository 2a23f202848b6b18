"""`/service`: services and their versions, with the classic API's shapes."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from handoff_common.access import owner_of
from handoff_common.errors import FieldError, invalid, not_found
from handoff_common.http import classic_body, ignored_header
from handoff_common.ids import short_id
from handoff_config import schemas, service_commands, views
from handoff_config.routes.common import (
    Configurer,
    Ctx,
    PageNumber,
    PerPage,
    Reader,
    link_header,
    on_service,
    service_for,
    warning_header,
)
from handoff_config.services import Service
from handoff_config.store import Answer
from handoff_config.streams import SERVICE

router = APIRouter(tags=["services"])
versions = APIRouter(prefix="/service/{service_id}/version", tags=["versions"])

# --- Services ----------------------------------------------------------------------------------


@router.post(
    "/service",
    response_model=schemas.ServiceOut,
    openapi_extra=schemas.classic_request(schemas.ServiceIn),
)
async def create_service(request: Request, ctx: Ctx, principal: Configurer) -> Response:
    """Create a service with version 1, a draft. WebSockets are off."""
    known = set(schemas.ServiceIn.model_fields)
    if principal.customer_id is not None:
        known.discard("customer_id")
    body = await classic_body(request, known)
    values = schemas.given(schemas.ServiceIn, body.values)
    customer_id = principal.customer_id or values.get("customer_id")
    if customer_id is None:
        raise invalid([FieldError("customer_id", "is missing; an operator says whose service")])
    customer = await ctx.store.customer(customer_id)
    if customer is None or customer.deleted_ms is not None:
        raise not_found("customer", customer_id)
    service_id = short_id()
    return await ctx.writer.write(
        request,
        principal,
        SERVICE,
        service_id,
        lambda _: service_commands.create(service_id, customer_id, values),
        lambda state: Answer(views.service(state)),
        ignored_header(body),
    )


@router.get("/service", response_model=list[schemas.ServiceListed])
async def list_services(
    request: Request,
    ctx: Ctx,
    principal: Reader,
    page: PageNumber = 1,
    per_page: PerPage = 20,
    sort: Literal["created"] = "created",
    direction: Literal["ascend", "descend"] = "ascend",
    customer_id: str | None = None,
) -> Response:
    """The customer's services, in the order they were created. An operator may name a customer."""
    found, total = await ctx.store.services(
        owner_of(principal, customer_id),
        offset=(page - 1) * per_page,
        limit=per_page,
        newest_first=direction == "descend",
    )
    return JSONResponse(
        [views.listed(service) for service in found],
        headers=link_header(request, page, per_page, total),
    )


@router.get("/service/search", response_model=schemas.ServiceOut)
async def search_service(
    ctx: Ctx, principal: Reader, name: Annotated[str, Query(max_length=255)]
) -> Response:
    """The service of exactly this name."""
    service = await ctx.store.service_named(principal.customer_id, name)
    if service is None:
        raise not_found("service named", name)
    return JSONResponse(views.service(service))


@router.get("/service/{service_id}", response_model=schemas.ServiceOut)
async def get_service(service_id: str, ctx: Ctx, principal: Reader) -> Response:
    return JSONResponse(views.service(await service_for(ctx, principal, service_id)))


@router.get("/service/{service_id}/details", response_model=schemas.ServiceDetail)
async def get_service_details(
    service_id: str, ctx: Ctx, principal: Reader, version: int | None = None
) -> Response:
    """The service with everything in its active version, and in the one asked for or the newest."""
    service = await service_for(ctx, principal, service_id)
    number = views.newest(service) if version is None else version
    service_commands.version_of(service, number)
    secrets = views.sees_secrets(principal)
    return JSONResponse(views.detail(service, number, secrets=secrets))


@router.get("/service/{service_id}/domain", response_model=list[schemas.DomainOut])
async def list_service_domains(service_id: str, ctx: Ctx, principal: Reader) -> Response:
    """The domains of the active version."""
    service = await service_for(ctx, principal, service_id)
    active = service.active
    domains = [] if active is None else active.domains.values()
    return JSONResponse([views.domain(service, active, d) for d in domains] if active else [])


@router.put(
    "/service/{service_id}",
    response_model=schemas.ServiceOut,
    openapi_extra=schemas.classic_request(schemas.ServiceIn),
)
async def update_service(
    service_id: str, request: Request, ctx: Ctx, principal: Configurer
) -> Response:
    body = await classic_body(request, {"name", "comment"})
    values = schemas.given(schemas.ServiceIn, body.values)
    return await ctx.writer.write(
        request,
        principal,
        SERVICE,
        service_id,
        on_service(principal, service_id, lambda s: service_commands.update(s, values)),
        lambda state: Answer(views.service(state)),
        ignored_header(body),
    )


@router.delete("/service/{service_id}", response_model=schemas.Status)
async def delete_service(
    service_id: str, request: Request, ctx: Ctx, principal: Configurer
) -> Response:
    """Delete a service that has no active version."""
    return await ctx.writer.write(
        request,
        principal,
        SERVICE,
        service_id,
        on_service(principal, service_id, service_commands.delete),
        lambda _: Answer({"status": "ok"}),
    )


# --- Versions ----------------------------------------------------------------------------------


def _version_answer(service: Service, number: int) -> Answer:
    return Answer(views.version(service, service.versions[number]))


def _newest_answer(service: Service) -> Answer:
    return _version_answer(service, views.newest(service))


@versions.get("", response_model=list[schemas.VersionOut])
async def list_versions(service_id: str, ctx: Ctx, principal: Reader) -> Response:
    service = await service_for(ctx, principal, service_id)
    return JSONResponse([views.version(service, v) for v in service.versions.values()])


@versions.post(
    "",
    response_model=schemas.VersionOut,
    openapi_extra=schemas.classic_request(schemas.VersionIn),
)
async def create_version(
    service_id: str, request: Request, ctx: Ctx, principal: Configurer
) -> Response:
    """Create an empty version. To go on from an existing one, clone it."""
    body = await classic_body(request, schemas.VersionIn.model_fields)
    values = schemas.given(schemas.VersionIn, body.values)
    return await ctx.writer.write(
        request,
        principal,
        SERVICE,
        service_id,
        on_service(principal, service_id, lambda s: service_commands.create_version(s, values)),
        _newest_answer,
        ignored_header(body),
    )


@versions.get("/{version}", response_model=schemas.VersionOut)
async def get_version(service_id: str, version: int, ctx: Ctx, principal: Reader) -> Response:
    service = await service_for(ctx, principal, service_id)
    return JSONResponse(views.version(service, service_commands.version_of(service, version)))


@versions.put(
    "/{version}",
    response_model=schemas.VersionOut,
    openapi_extra=schemas.classic_request(schemas.VersionIn),
)
async def update_version(
    service_id: str, version: int, request: Request, ctx: Ctx, principal: Configurer
) -> Response:
    """Change the comment of a draft."""
    body = await classic_body(request, schemas.VersionIn.model_fields)
    values = schemas.given(schemas.VersionIn, body.values)
    return await ctx.writer.write(
        request,
        principal,
        SERVICE,
        service_id,
        on_service(
            principal, service_id, lambda s: service_commands.update_version(s, version, values)
        ),
        lambda state: _version_answer(state, version),
        ignored_header(body),
    )


@versions.put("/{version}/clone", response_model=schemas.VersionOut)
async def clone_version(
    service_id: str, version: int, request: Request, ctx: Ctx, principal: Configurer
) -> Response:
    """A new draft with everything that the version has."""
    return await ctx.writer.write(
        request,
        principal,
        SERVICE,
        service_id,
        on_service(principal, service_id, lambda s: service_commands.clone(s, version)),
        _newest_answer,
    )


@versions.put("/{version}/activate", response_model=schemas.VersionOut)
async def activate_version(
    service_id: str, version: int, request: Request, ctx: Ctx, principal: Configurer
) -> Response:
    """Make the version the active one, and lock it.

    422 `version_invalid` or `incompatible` with everything that stands against it; 409
    `domain_taken` where another active service has one of its domains.
    """
    return await ctx.writer.write(
        request,
        principal,
        SERVICE,
        service_id,
        on_service(principal, service_id, lambda s: service_commands.activate(s, version)),
        lambda state: _version_answer(state, version),
    )


@versions.put("/{version}/deactivate", response_model=schemas.VersionOut)
async def deactivate_version(
    service_id: str, version: int, request: Request, ctx: Ctx, principal: Configurer
) -> Response:
    """Leave the service without an active version."""
    return await ctx.writer.write(
        request,
        principal,
        SERVICE,
        service_id,
        on_service(principal, service_id, lambda s: service_commands.deactivate(s, version)),
        lambda state: _version_answer(state, version),
    )


@versions.put("/{version}/lock", response_model=schemas.VersionOut)
async def lock_version(
    service_id: str, version: int, request: Request, ctx: Ctx, principal: Configurer
) -> Response:
    """Make the version immutable, without activating it."""
    return await ctx.writer.write(
        request,
        principal,
        SERVICE,
        service_id,
        on_service(principal, service_id, lambda s: service_commands.lock(s, version)),
        lambda state: _version_answer(state, version),
    )


@versions.get("/{version}/validate", response_model=schemas.Validity)
async def validate_version(service_id: str, version: int, ctx: Ctx, principal: Reader) -> Response:
    """Whether the version could be activated, and what is worth knowing of it."""
    service = await service_for(ctx, principal, service_id)
    verdict = service_commands.verdict(service, version)
    taken = await ctx.store.taken_domains(service, version)
    whole = service_commands.Verdict([*verdict.errors, *taken], verdict.warnings)
    return JSONResponse(views.validity(whole), headers=warning_header(verdict.warnings))
