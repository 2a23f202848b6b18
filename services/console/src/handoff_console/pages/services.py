"""Services: the list, one service at a glance, its limits, its history, making and deleting one."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from msgspec import UNSET
from starlette.responses import Response
from starlette.routing import Route

from handoff_client import Conflict, Invalid, NotFound, products, services
from handoff_client import history as histories
from handoff_client import limits as service_limits
from handoff_client.products import Check
from handoff_client.services import ListedService, ServiceDetail
from handoff_common.access import Permission
from handoff_console.attempts import FRESH, attempt, errors_of, said
from handoff_console.context import Refused, Visit, page
from handoff_console.figures import Figure, figures_of
from handoff_console.part_forms import Field, NotANumber, values
from handoff_console.violations import hindrances, standing

PER_PAGE = 50
_DETAILS_AT_ONCE = 8


class Row(NamedTuple):
    """domains: of the active version, else of the newest. hindrances: why nothing is handed off
    though it is enabled."""

    service: ListedService
    domains: Sequence[str]
    enabled: bool
    hindrances: Sequence[str]
    figure: Figure


async def listed(visit: Visit) -> Response:
    # Before anything is asked: an operator who has chosen nobody would get everyone's.
    customer_id = visit.customer_id
    at = visit.request.query_params.get("page")
    if at is not None and not (at.isascii() and at.isdigit() and len(at) < 7):
        raise Refused(404, "No such page", "Pages are counted from 1.")
    listing = services.listing(per_page=PER_PAGE, customer_id=customer_id)
    found = await visit.api.page(listing, at)
    enabled, figures, domains = await asyncio.gather(
        visit.api.run(products.enabled_services(customer_id=_named(visit))),
        figures_of(visit),
        _domains(visit, found.items),
    )
    on = {service.id for service in found.items} & set(enabled.services)
    check = await _any_check(visit, sorted(on))
    rows = [
        Row(
            service,
            domains.get(service.id, ()),
            service.id in on,
            hindrances(check, active=any(version.active for version in service.versions))
            if check is not None and service.id in on
            else (),
            figures.of(service.id),
        )
        for service in found.items
    ]
    return visit.render("services.html", rows=rows, following=found.next, figures=figures)


async def _any_check(visit: Visit, service_ids: Sequence[str]) -> Check | None:
    """Of one of a customer's services: whether it is entitled is the same for all."""
    for service_id in service_ids:
        try:
            return await visit.api.run(products.check(service_id))
        except NotFound:
            # Deleted since the list was read.
            continue
    return None


async def _domains(visit: Visit, own: Sequence[ListedService]) -> Mapping[str, Sequence[str]]:
    turn = asyncio.Semaphore(_DETAILS_AT_ONCE)

    async def of(service: ListedService) -> tuple[str, Sequence[str]]:
        async with turn:
            try:
                found = await visit.api.run(services.details(service.id))
            except NotFound:
                # Deleted since the list was read.
                return service.id, ()
        version = found.active_version or found.version
        return service.id, [domain.name for domain in version.domains]

    return dict(await asyncio.gather(*(of(service) for service in own)))


async def new(visit: Visit) -> Response:
    return visit.render("service_new.html", tried=FRESH)


async def create(visit: Visit) -> Response:
    name, comment = visit.field("name"), visit.field("comment")
    try:
        whose = visit.customer_id if visit.viewer.is_operator else UNSET
        made = await visit.api.run(services.create(name, comment=comment, customer_id=whose))
    except (Invalid, Conflict) as error:
        tried = attempt(visit, "service", ("name", "comment"), error)
        return visit.render("service_new.html", status=tried.status, tried=tried)
    return visit.go(
        f"/services/{made.id}/versions/1", flash="Made. Give it a domain and a backend."
    )


async def service_of(visit: Visit, *, version: int | None = None) -> ServiceDetail:
    """The service in the path, with that version or the newest. Raises Refused where it is another
    customer's than the one that an operator has chosen: the figures beside it would be wrong."""
    service_id = visit.request.path_params["service_id"]
    found = await visit.api.run(services.details(service_id, version=version))
    viewer = visit.viewer
    if viewer.customer_id not in (None, found.customer_id):
        raise Refused(
            404,
            "Another customer's service",
            f"You look as {viewer.customer_name}, and this service is that of customer "
            f"{found.customer_id}: choose that one under Customers.",
        )
    return found


async def check_of(visit: Visit, service: ServiceDetail) -> Check:
    """What stands against WebSockets in the active version; where none is, in the newest draft,
    which will be. service: with its newest version."""
    number = None
    if service.active_version is None:
        number = draft_of(service.versions) or service.version.number
    return await visit.api.run(products.check(service.id, version=number))


def checked(service: ServiceDetail, check: Check) -> str:
    """Which version a check has looked at."""
    draft = service.active_version is None and check.version == draft_of(service.versions)
    return f"{'draft' if draft else 'version'} {check.version}"


async def overview(visit: Visit) -> Response:
    detail = await service_of(visit)
    service_id = detail.id
    check, held, figures = await asyncio.gather(
        check_of(visit, detail),
        visit.api.run(service_limits.get(service_id)),
        figures_of(visit),
    )
    return visit.render(
        "service.html",
        service=detail,
        active=detail.active_version,
        check=check,
        against=standing(check.violations, checked(detail, check)),
        hindrances=hindrances(check, active=detail.active_version is not None),
        limits=held,
        figures=figures,
        own=figures.of(service_id),
        draft=draft_of(detail.versions),
        edge=visit.console.settings.console_edge_url,
    )


def draft_of(versions: Sequence[object]) -> int | None:
    """The newest version that may be changed."""
    drafts = [v.number for v in versions if not (v.active or v.locked)]  # type: ignore[attr-defined]
    return max(drafts, default=None)


async def history(visit: Visit) -> Response:
    service_id = visit.request.path_params["service_id"]
    service, entries = await asyncio.gather(
        service_of(visit),
        visit.api.page(
            histories.of_service(service_id, limit=50), visit.request.query_params.get("at")
        ),
    )
    return visit.render(
        "service_history.html", service=service, entries=entries.items, following=entries.next
    )


LIMITS = (
    Field("max_connections", "Open connections", "number", "Empty: no limit"),
    Field("max_new_per_second", "New connections per second", "number", "Empty: no limit"),
    Field("max_bytes_per_second", "Bytes per second, both ways", "number", "Empty: no limit"),
    Field("idle_timeout_ms", "Idle time-out, ms", "number", "No byte either way for so long"),
    Field("half_closed_timeout_ms", "Half-closed time-out, ms", "number", "One side has ended"),
    Field("max_duration_ms", "Longest life, ms", "number", "Empty: no limit"),
)


async def edit_limits(visit: Visit) -> Response:
    service_id = visit.request.path_params["service_id"]
    service = await service_of(visit)
    held = await visit.api.run(service_limits.get(service_id).with_headers())
    typed = {field.name: getattr(held.value, field.name) for field in LIMITS}
    return visit.render(
        "limits.html", service=service, fields=LIMITS, typed=typed, etag=held.etag or "", errors={}
    )


async def save_limits(visit: Visit) -> Response:
    service_id = visit.request.path_params["service_id"]
    typed = {field.name: visit.field(field.name) for field in LIMITS}
    try:
        given = values(LIMITS, lambda name: typed.get(name))
        kept = {name: value for name, value in given.items() if value is not None}
        await visit.api.run(
            service_limits.put(service_id, if_match=visit.field("etag") or None, **kept)
        )
    except (Invalid, Conflict, NotANumber) as error:
        service = await service_of(visit)
        etag = visit.field("etag")
        if isinstance(error, Conflict):
            # Who saves again has been told what it is that they write over.
            etag = (await visit.api.run(service_limits.get(service_id).with_headers())).etag or ""
        return visit.render(
            "limits.html",
            status=error.status if isinstance(error, Conflict) else 422,
            service=service,
            fields=LIMITS,
            typed=typed,
            etag=etag,
            errors=errors_of(error, typed),
        )
    return visit.go(f"/services/{service_id}", flash="The limits hold from now on.")


async def delete(visit: Visit) -> Response:
    service_id = visit.request.path_params["service_id"]
    try:
        await visit.api.run(services.delete(service_id))
    except Invalid as error:
        raise Refused(409, "Not deleted", said(error)) from None
    return visit.go("/services", flash="The service is deleted.")


def _named(visit: Visit) -> str | None:
    return visit.customer_id if visit.viewer.is_operator else None


ROUTES = (
    Route("/services", page(Permission.READ_CONFIG, listed)),
    Route("/services/new", page(Permission.WRITE_CONFIG, new)),
    Route("/services", page(Permission.WRITE_CONFIG, create), methods=["POST"]),
    Route("/services/{service_id}", page(Permission.READ_CONFIG, overview)),
    Route("/services/{service_id}/history", page(Permission.READ_CONFIG, history)),
    Route("/services/{service_id}/limits", page(Permission.READ_CONFIG, edit_limits)),
    Route(
        "/services/{service_id}/limits",
        page(Permission.WRITE_CONFIG, save_limits),
        methods=["POST"],
    ),
    Route("/services/{service_id}/delete", page(Permission.WRITE_CONFIG, delete), methods=["POST"]),
)
