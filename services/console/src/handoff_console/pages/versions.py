"""One version of a service: what it holds, what it would change, whether it is valid; making a
draft of it, activating it. And the rule tester."""

import asyncio
from collections.abc import Sequence

from starlette.responses import Response
from starlette.routing import Route

from handoff_client import Conflict, Invalid, NotFound, matching, products, versions
from handoff_client.services import ServiceDetail
from handoff_common.access import Permission
from handoff_console.attempts import said
from handoff_console.context import Refused, Visit, page
from handoff_console.differences import differences
from handoff_console.pages.services import draft_of, service_of
from handoff_console.violations import place_of


def number_of(visit: Visit) -> int:
    """The version in the path. Raises Refused."""
    text = visit.request.path_params["number"]
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Refused(404, "No such version", "Versions are counted from 1.")
    return int(text)


async def service_with(visit: Visit, number: int) -> ServiceDetail:
    return await service_of(visit, version=number)


def editable(visit: Visit, service: ServiceDetail) -> bool:
    version = service.version
    return not (version.active or version.locked) and visit.viewer.can(Permission.WRITE_CONFIG)


async def show(visit: Visit) -> Response:
    return await _shown(visit)


async def _shown(visit: Visit, *, status: int = 200, error: str = "") -> Response:
    number = number_of(visit)
    service_id = visit.request.path_params["service_id"]
    service, validity, check = await asyncio.gather(
        service_with(visit, number),
        visit.api.run(versions.validate(service_id, number)),
        visit.api.run(products.check(service_id, version=number)),
    )
    active = service.active_version
    compared = active is not None and active.number != number
    return visit.render(
        "version.html",
        status=status,
        error=error,
        service=service,
        version=service.version,
        validity=validity,
        check=check,
        violations=[
            (one, (place_of(service_id, one) or "").replace("{draft}", str(number)))
            for one in check.violations
        ],
        draft=draft_of(service.versions),
        changes=differences(active, service.version) if compared else (),
        compared=compared,
        may_edit=editable(visit, service),
    )


async def choose(visit: Visit) -> Response:
    """From the list of versions to one of them."""
    service_id = visit.request.path_params["service_id"]
    number = visit.request.query_params.get("number", "")
    return visit.go(
        f"/services/{service_id}/versions/{number}"
        if number.isdigit()
        else f"/services/{service_id}"
    )


async def clone(visit: Visit) -> Response:
    """A draft that has all that this version has; `next` may name a place in it, with `{draft}` for
    its number."""
    service_id = visit.request.path_params["service_id"]
    made = await visit.api.run(versions.clone(service_id, number_of(visit)))
    following = visit.field("next").replace("{draft}", str(made.number))
    start = f"/services/{service_id}/versions/{made.number}"
    return visit.go(
        following if following.startswith(start) else start,
        flash=f"Draft {made.number} was made. It changes nothing until you activate it.",
    )


async def activate(visit: Visit) -> Response:
    service_id = visit.request.path_params["service_id"]
    number = number_of(visit)
    try:
        await visit.api.run(versions.activate(service_id, number))
    except (Invalid, Conflict) as error:
        return await _shown(visit, status=error.status, error=said(error))
    return visit.go(
        f"/services/{service_id}/versions/{number}",
        flash=f"Version {number} is active. New connections follow it at once.",
    )


async def deactivate(visit: Visit) -> Response:
    service_id = visit.request.path_params["service_id"]
    number = number_of(visit)
    try:
        await visit.api.run(versions.deactivate(service_id, number))
    except (Invalid, Conflict) as error:
        return await _shown(visit, status=error.status, error=said(error))
    return visit.go(
        f"/services/{service_id}/versions/{number}",
        flash="The service has no active version now: new connections are refused.",
    )


async def tester(visit: Visit) -> Response:
    """Which rule and backend a request would take; nothing is changed."""
    service_id = visit.request.path_params["service_id"]
    query = visit.request.query_params
    service = await service_of(visit)
    asked = query.get("version", "")
    newest = service.active_version.number if service.active_version else service.version.number
    number = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 10 else newest
    url = query.get("url", "").strip()
    found, error, errors = None, "", dict[str, str]()
    if url:
        try:
            found = await visit.api.run(
                matching.match(
                    service_id,
                    number,
                    url,
                    headers=headers_of(query.get("headers", "")),
                    subprotocols=[
                        one.strip()
                        for one in query.get("subprotocols", "").split(",")
                        if one.strip()
                    ],
                )
            )
        except Invalid as problem:
            errors = tester_errors(problem)
        except NotFound as problem:
            error = said(problem)
    return visit.render(
        "tester.html",
        service=service,
        number=number,
        url=url,
        headers=query.get("headers", ""),
        subprotocols=query.get("subprotocols", ""),
        found=found,
        error=error,
        errors=errors,
    )


def tester_errors(error: Invalid) -> dict[str, str]:
    """Field of the form → what is wrong with it. `headers.1.0` is in a line of the headers, which
    its reason repeats."""
    found: dict[str, str] = {}
    for one in error.errors:
        field = one.property.partition(".")[0]
        found[field] = "; ".join(filter(None, (found.get(field), one.reason)))
    return found or {"url": said(error)}


def headers_of(text: str) -> Sequence[tuple[str, str]]:
    """Lines of `Name: value`; what has no colon is a name with no value."""
    found = []
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip():
            found.append((name.strip(), value.strip()))
    return found


_ONE = "/services/{service_id}/versions/{number}"
ROUTES = (
    Route("/services/{service_id}/versions", page(Permission.READ_CONFIG, choose)),
    Route(_ONE, page(Permission.READ_CONFIG, show)),
    Route(f"{_ONE}/clone", page(Permission.WRITE_CONFIG, clone), methods=["POST"]),
    Route(f"{_ONE}/activate", page(Permission.WRITE_CONFIG, activate), methods=["POST"]),
    Route(f"{_ONE}/deactivate", page(Permission.WRITE_CONFIG, deactivate), methods=["POST"]),
    Route("/services/{service_id}/tester", page(Permission.READ_CONFIG, tester)),
)
