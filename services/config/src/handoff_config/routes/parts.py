"""`/service/{id}/version/{n}/…`: domains, backends, directors, websocket-rules, and the links
between directors and backends.

The four kinds share their calls: list, create, get, update, delete.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from handoff_common.http import classic_body, ignored_header, parse
from handoff_config import part_commands, schemas, service_commands, views
from handoff_config.routes.common import (
    Configurer,
    Ctx,
    Reader,
    on_service,
    service_for,
    warning_header,
)
from handoff_config.service_commands import Events, Values, verdict
from handoff_config.services import Service, Version, in_matching_order
from handoff_config.store import Answer
from handoff_config.streams import SERVICE

router = APIRouter(prefix="/service/{service_id}/version/{version}", tags=["version parts"])
_RULE_NESTED = ("header", "query")


@dataclass(frozen=True)
class _Kind:
    """One kind of part. warns: whether WebSockets may not go together with it."""

    path: str
    about: str
    request: type[schemas.Classic]
    answer: type[BaseModel]
    parts: Callable[[Version], Iterable[Any]]
    find: Callable[[Version, str], Any]
    save: Callable[[Service, int, str | None, Values], Events]
    delete: Callable[[Service, int, str], Events]
    view: Callable[[Service, Version, Any, bool], dict[str, Any]]
    warns: bool = True


_KINDS = (
    _Kind(
        "domain",
        "domain",
        schemas.DomainIn,
        schemas.DomainOut,
        lambda version: version.domains.values(),
        part_commands.domain_of,
        part_commands.save_domain,
        part_commands.delete_domain,
        lambda service, version, part, _: views.domain(service, version, part),
        warns=False,
    ),
    _Kind(
        "backend",
        "backend",
        schemas.BackendIn,
        schemas.BackendOut,
        lambda version: version.backends.values(),
        part_commands.backend_of,
        part_commands.save_backend,
        part_commands.delete_backend,
        lambda service, version, part, secrets: views.backend(
            service, version, part, secrets=secrets
        ),
    ),
    _Kind(
        "director",
        "director",
        schemas.DirectorIn,
        schemas.DirectorOut,
        lambda version: version.directors.values(),
        part_commands.director_of,
        part_commands.save_director,
        part_commands.delete_director,
        lambda service, version, part, secrets: views.director(
            service, version, part, secrets=secrets
        ),
    ),
    _Kind(
        "websocket-rule",
        "WebSocket rule; rules are tried by `priority`, then by name",
        schemas.RuleIn,
        schemas.RuleOut,
        lambda version: in_matching_order(version.rules.values()),
        part_commands.rule_of,
        part_commands.save_rule,
        part_commands.delete_rule,
        lambda service, version, part, _: views.rule(service, version, part),
    ),
)


def _add(kind: _Kind) -> None:
    name = kind.path.replace("-", "_")

    def warnings(service: Service, version: int) -> dict[str, str]:
        return warning_header(verdict(service, version).warnings) if kind.warns else {}

    async def listed(service_id: str, version: int, ctx: Ctx, principal: Reader) -> Response:
        service = await service_for(ctx, principal, service_id)
        found = service_commands.version_of(service, version)
        secrets = views.sees_secrets(principal)
        return JSONResponse([kind.view(service, found, p, secrets) for p in kind.parts(found)])

    async def got(
        service_id: str, version: int, name: str, ctx: Ctx, principal: Reader
    ) -> Response:
        service = await service_for(ctx, principal, service_id)
        found = service_commands.version_of(service, version)
        part = kind.find(found, name)
        return JSONResponse(kind.view(service, found, part, views.sees_secrets(principal)))

    async def save(
        service_id: str,
        version: int,
        was: str | None,
        request: Request,
        ctx: Ctx,
        principal: Configurer,
    ) -> Response:
        body = await classic_body(request, _known(kind))
        values = schemas.given(kind.request, _flat(kind, body.values))
        if was is not None and "name" in values and values["name"] is None:
            # Clients that send every field send an empty name where they mean to keep it.
            del values["name"]
        named = values.get("name") or was or ""

        def answer(state: Service) -> Answer:
            found = state.versions[version]
            part = kind.find(found, named)
            view = kind.view(state, found, part, views.sees_secrets(principal))
            return Answer(view, headers=warnings(state, version))

        return await ctx.writer.write(
            request,
            principal,
            SERVICE,
            service_id,
            on_service(principal, service_id, lambda s: kind.save(s, version, was, values)),
            answer,
            ignored_header(body),
        )

    async def created(
        service_id: str, version: int, request: Request, ctx: Ctx, principal: Configurer
    ) -> Response:
        return await save(service_id, version, None, request, ctx, principal)

    async def updated(
        service_id: str,
        version: int,
        name: str,
        request: Request,
        ctx: Ctx,
        principal: Configurer,
    ) -> Response:
        return await save(service_id, version, name, request, ctx, principal)

    async def deleted(
        service_id: str,
        version: int,
        name: str,
        request: Request,
        ctx: Ctx,
        principal: Configurer,
    ) -> Response:
        return await ctx.writer.write(
            request,
            principal,
            SERVICE,
            service_id,
            on_service(principal, service_id, lambda s: kind.delete(s, version, name)),
            lambda state: Answer({"status": "ok"}, headers=warnings(state, version)),
        )

    body = schemas.classic_request(kind.request)
    many, one = f"/{kind.path}", f"/{kind.path}/{{name}}"
    add = router.add_api_route
    add(
        many,
        listed,
        methods=["GET"],
        name=f"list_{name}s",
        response_model=list[kind.answer],  # type: ignore[name-defined]
        description=f"Every {kind.about}.",
    )
    add(
        many,
        created,
        methods=["POST"],
        name=f"create_{name}",
        response_model=kind.answer,
        openapi_extra=body,
        description=f"Create a {kind.about}. Only in a draft.",
    )
    add(
        one,
        got,
        methods=["GET"],
        name=f"get_{name}",
        response_model=kind.answer,
        description=f"One {kind.about}.",
    )
    add(
        one,
        updated,
        methods=["PUT"],
        name=f"update_{name}",
        response_model=kind.answer,
        openapi_extra=body,
        description=f"Change a {kind.about}; fields left out stay. Only in a draft.",
    )
    add(
        one,
        deleted,
        methods=["DELETE"],
        name=f"delete_{name}",
        response_model=schemas.Status,
        description=f"Delete a {kind.about}. Only in a draft.",
    )


def _known(kind: _Kind) -> set[str]:
    nested = _RULE_NESTED if kind.request is schemas.RuleIn else ()
    return {*kind.request.model_fields, *nested}


def _flat(kind: _Kind, values: dict[str, Any]) -> dict[str, Any]:
    """A rule's `header` and `query` may come as objects with name and value, as in events."""
    if kind.request is not schemas.RuleIn:
        return values
    flat = {k: v for k, v in values.items() if k not in _RULE_NESTED}
    for key in _RULE_NESTED:
        if key in values:
            pair = parse(schemas.NameValueIn, values[key] or {})
            flat |= {f"{key}_name": pair.name, f"{key}_value": pair.value}
    return flat


for _kind in _KINDS:
    _add(_kind)

# --- Links between directors and backends ------------------------------------------------------

_LINK = "/director/{director}/backend/{backend}"


@router.get(_LINK, response_model=schemas.LinkOut)
async def get_director_backend(
    service_id: str, version: int, director: str, backend: str, ctx: Ctx, principal: Reader
) -> Response:
    """Whether the backend is a member of the director; 404 where not."""
    service = await service_for(ctx, principal, service_id)
    found = service_commands.version_of(service, version)
    member = part_commands.linked(found, director, backend)
    return JSONResponse(views.link(service, found, member, backend))


@router.post(_LINK, response_model=schemas.LinkOut)
async def create_director_backend(
    service_id: str,
    version: int,
    director: str,
    backend: str,
    request: Request,
    ctx: Ctx,
    principal: Configurer,
) -> Response:
    """Make the backend a member of the director."""

    def answer(state: Service) -> Answer:
        found = state.versions[version]
        view = views.link(state, found, found.directors[director], backend)
        return Answer(view, headers=warning_header(verdict(state, version).warnings))

    return await ctx.writer.write(
        request,
        principal,
        SERVICE,
        service_id,
        on_service(
            principal, service_id, lambda s: part_commands.link(s, version, director, backend)
        ),
        answer,
    )


@router.delete(_LINK, response_model=schemas.Status)
async def delete_director_backend(
    service_id: str,
    version: int,
    director: str,
    backend: str,
    request: Request,
    ctx: Ctx,
    principal: Configurer,
) -> Response:
    """Take the backend out of the director."""
    return await ctx.writer.write(
        request,
        principal,
        SERVICE,
        service_id,
        on_service(
            principal, service_id, lambda s: part_commands.unlink(s, version, director, backend)
        ),
        lambda _: Answer({"status": "ok"}),
    )
