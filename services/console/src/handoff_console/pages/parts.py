"""The parts of a draft: domains, backends, directors (which can only be deleted here: they do not
go with WebSockets), rules."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from starlette.responses import Response
from starlette.routing import Route

from handoff_client import Conflict, Invalid, backends, directors, domains, websocket_rules
from handoff_client.call import Call
from handoff_client.services import ServiceDetail
from handoff_common.access import Permission
from handoff_console.attempts import CHANGED, errors_of
from handoff_console.context import Refused, Visit, page
from handoff_console.pages.versions import editable, number_of, service_with
from handoff_console.part_forms import (
    BACKEND,
    BACKEND_OTHERS,
    DOMAIN,
    RULE,
    Field,
    NotANumber,
    mark_of,
    shown,
    typed_text,
    untouched,
    values,
)


class Kind(NamedTuple):
    """One kind of part: its form, where its parts are, and the API's calls for it. others: fields
    behind a fold."""

    noun: str
    attribute: str
    fields: tuple[Field, ...]
    others: tuple[Field, ...]
    create: Callable[[str, int, Mapping[str, Any]], Call[Any]]
    update: Callable[[str, int, str, Mapping[str, Any]], Call[Any]]
    delete: Callable[[str, int, str], Call[None]]


def _rest(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name != "name"}


def _set(given: Mapping[str, Any]) -> dict[str, Any]:
    """Of a new part: what is empty is left to its default."""
    return {name: value for name, value in _rest(given).items() if value is not None}


KINDS = {
    "domains": Kind(
        "domain",
        "domains",
        DOMAIN,
        (),
        lambda s, v, g: domains.create(s, v, g["name"] or "", comment=g.get("comment") or ""),
        lambda s, v, name, g: domains.update(
            s, v, name, new_name=g["name"] or "", comment=g.get("comment") or ""
        ),
        domains.delete,
    ),
    "backends": Kind(
        "backend",
        "backends",
        BACKEND,
        BACKEND_OTHERS,
        lambda s, v, g: backends.create(s, v, g["name"] or "", **_set(g)),
        lambda s, v, name, g: backends.update(s, v, name, **g),
        backends.delete,
    ),
    "rules": Kind(
        "rule",
        "websocket_rules",
        RULE,
        (),
        lambda s, v, g: websocket_rules.create(s, v, g["name"] or "", **_set(g)),
        lambda s, v, name, g: websocket_rules.update(s, v, name, **g),
        websocket_rules.delete,
    ),
}


async def new(visit: Visit) -> Response:
    kind = _kind(visit)
    service = await _draft(visit)
    return _form(visit, service, kind, None, {}, {})


async def edit(visit: Visit) -> Response:
    """Of a version that may not be changed, the same page without a button."""
    kind = _kind(visit)
    service = await service_with(visit, number_of(visit))
    name = visit.request.path_params["name"]
    part = _part(service, kind, name)
    held = shown(kind.fields + kind.others, part)
    return _form(visit, service, kind, name, held, {}, seen=mark_of(held))


async def create(visit: Visit) -> Response:
    return await _save(visit, None)


async def update(visit: Visit) -> Response:
    return await _save(visit, visit.request.path_params["name"])


async def _save(visit: Visit, name: str | None) -> Response:
    kind = _kind(visit)
    service = await _draft(visit)
    service_id, number = service.id, service.version.number
    fields = kind.fields + kind.others
    typed = {field.name: _typed(visit, field.name) for field in fields}
    seen = visit.field("seen")
    held = {} if name is None else shown(fields, _part(service, kind, name))
    if name is not None and seen:
        # A part has no ETag at the API: what stood in the form when it was opened is its mark.
        now = mark_of(held)
        if now != seen:
            return _form(visit, service, kind, name, typed, {"": CHANGED}, status=412, seen=now)
    try:
        given = untouched(values(fields, lambda field: _typed(visit, field)), held)
        if name is None:
            await visit.api.run(kind.create(service_id, number, given))
        else:
            await visit.api.run(kind.update(service_id, number, name, given))
    except (Invalid, Conflict, NotANumber) as error:
        errors = errors_of(error, typed)
        return _form(visit, service, kind, name, typed, errors, status=422, seen=seen)
    what = "added" if name is None else "changed"
    return visit.go(_home(service), flash=f"The {kind.noun} is {what}.")


async def delete(visit: Visit) -> Response:
    kind = _kind(visit)
    service = await _draft(visit)
    name = visit.request.path_params["name"]
    await visit.api.run(kind.delete(service.id, service.version.number, name))
    return visit.go(_home(service), flash=f"The {kind.noun} is deleted from the draft.")


async def delete_director(visit: Visit) -> Response:
    service = await _draft(visit)
    name = visit.request.path_params["name"]
    await visit.api.run(directors.delete(service.id, service.version.number, name))
    return visit.go(_home(service), flash="The director is deleted from the draft.")


def _typed(visit: Visit, name: str) -> str | None:
    value = visit.form.get(name)
    return None if value is None else typed_text(value)


def _home(service: ServiceDetail) -> str:
    return f"/services/{service.id}/versions/{service.version.number}"


def _kind(visit: Visit) -> Kind:
    try:
        return KINDS[visit.request.path_params["kind"]]
    except KeyError:
        raise Refused(404, "No such page", "Nothing is at this address.") from None


async def _draft(visit: Visit) -> ServiceDetail:
    """The service with a version that may be changed. Raises Refused."""
    service = await service_with(visit, number_of(visit))
    if not editable(visit, service):
        number = service.version.number
        raise Refused(
            409,
            f"Version {number} is fixed",
            "An active or locked version is never changed: make a draft of it first.",
        )
    return service


def _part(service: ServiceDetail, kind: Kind, name: str) -> Any:
    for part in getattr(service.version, kind.attribute):
        if part.name == name:
            return part
    raise Refused(
        404,
        f"No such {kind.noun}",
        f"Version {service.version.number} has no {kind.noun} {name!r}.",
    )


def _form(
    visit: Visit,
    service: ServiceDetail,
    kind: Kind,
    name: str | None,
    typed: Mapping[str, Any],
    errors: Mapping[str, str],
    *,
    status: int = 200,
    seen: str = "",
) -> Response:
    path = visit.request.path_params["kind"]
    return visit.render(
        "part.html",
        status=status,
        service=service,
        version=service.version,
        kind=kind,
        path=path,
        name=name,
        typed=typed,
        errors=errors,
        seen=seen,
        backends=[(one.name, one.name) for one in service.version.backends],
        may_edit=editable(visit, service),
    )


_VERSION = "/services/{service_id}/versions/{number}"
_ONE = _VERSION + "/{kind}/{name:path}"
ROUTES = (
    Route(
        _VERSION + "/directors/{name:path}/delete",
        page(Permission.WRITE_CONFIG, delete_director),
        methods=["POST"],
    ),
    Route(_VERSION + "/new/{kind}", page(Permission.WRITE_CONFIG, new)),
    Route(_VERSION + "/new/{kind}", page(Permission.WRITE_CONFIG, create), methods=["POST"]),
    Route(f"{_ONE}/delete", page(Permission.WRITE_CONFIG, delete), methods=["POST"]),
    Route(_ONE, page(Permission.READ_CONFIG, edit)),
    Route(_ONE, page(Permission.WRITE_CONFIG, update), methods=["POST"]),
)
