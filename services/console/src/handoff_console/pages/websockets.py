"""The WebSockets switch of one service: what stands against it, where to mend that, what it will
cost, and who switched it."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from msgspec import UNSET
from starlette.responses import Response
from starlette.routing import Route

from handoff_client import (
    Conflict,
    HandoffApiError,
    Invalid,
    Unauthorized,
    prices,
    products,
    stats,
    usage,
)
from handoff_client import history as histories
from handoff_client.prices import Estimate
from handoff_client.products import Violation
from handoff_client.services import ServiceDetail
from handoff_common.access import Permission
from handoff_console.attempts import said
from handoff_console.context import Refused, Visit, page
from handoff_console.figures import EPOCH
from handoff_console.pages.services import check_of, checked, draft_of, service_of
from handoff_console.viewer import Viewer
from handoff_console.violations import hindrances, place_of, standing

MINUTES_OF_MONTH = 30 * 24 * 60
MOST_CONNECTIONS = 100_000_000
_HISTORY = 50
NO_PRICES = "No prices are in force."
UNTOLD = "The cost cannot be told just now."


class Repair(NamedTuple):
    """A violation and where it is mended. in_version: the page of the field, with `{draft}` for a
    draft's number; None where it is no setting of a version."""

    violation: Violation
    in_version: str | None


def repair_of(service_id: str, violation: Violation) -> Repair:
    return Repair(violation, place_of(service_id, violation))


async def show(visit: Visit) -> Response:
    return await _shown(visit)


async def _shown(visit: Visit, *, status: int = 200, error: str = "") -> Response:
    service = await service_of(visit)
    service_id = service.id
    check, switched = await asyncio.gather(
        check_of(visit, service),
        visit.api.page(histories.of_service(service_id, object="product", limit=_HISTORY)),
    )
    draft = draft_of(service.versions)
    draft_check = None
    if draft not in (None, check.version) and check.violations:
        draft_check = await visit.api.run(products.check(service_id, version=draft))
    connections = connections_of(visit.request.query_params.get("connections"))
    regions = await visit.api.run(stats.regions())
    region = await _region(visit, service, regions)
    return visit.render(
        "websockets.html",
        status=status,
        error=error,
        service=service,
        check=check,
        checked=checked(service, check),
        against=standing(check.violations, checked(service, check)),
        hindrances=hindrances(check, active=service.active_version is not None),
        repairs=[repair_of(service_id, violation) for violation in check.violations],
        draft=draft,
        draft_check=draft_check,
        left={(one.object, one.name, one.field) for one in draft_check.violations}
        if draft_check is not None
        else set(),
        connections=connections,
        preview=await _preview(visit, service, connections, region),
        region=region,
        regions=[(name, name) for name in regions],
        switched=switched.items,
    )


async def preview(visit: Visit) -> Response:
    """The cost for another number of connections, as a part of the page."""
    connections = connections_of(visit.request.query_params.get("connections"))
    service = await service_of(visit)
    regions = await visit.api.run(stats.regions())
    region = await _region(visit, service, regions)
    return visit.render(
        "cost_preview.html",
        service=service,
        connections=connections,
        preview=await _preview(visit, service, connections, region),
        region=region,
    )


class Preview(NamedTuple):
    """minutes: of so many connections that are open for a month of 30 days. amount: what they add
    to this month's bill; where `alone`, for those who may not read that, what they cost alone."""

    minutes: int
    estimate: Estimate
    amount: Decimal
    alone: bool


def may_preview(viewer: Viewer) -> bool:
    """Whoever may switch it on is told what that costs."""
    return viewer.can(Permission.READ_BILLING) or viewer.can(Permission.TOGGLE_PRODUCTS)


async def _region(visit: Visit, service: ServiceDetail, regions: Sequence[str]) -> str:
    """That is asked for; else that of the most minutes that the customer has had."""
    asked = visit.request.query_params.get("region", "")
    if asked in regions:
        return asked
    listing = usage.listing(by="month", from_=EPOCH, customer_id=service.customer_id, limit=1_000)
    minutes: Counter[str] = Counter()
    async for row in visit.api.items(listing):
        minutes[row.region] += row.minutes
    return minutes.most_common(1)[0][0] if minutes else prices.SupposedUsage().region


async def _preview(
    visit: Visit, service: ServiceDetail, connections: int, region: str
) -> Preview | str | None:
    """Why there is none, where it cannot be told; None for those who may not have one."""
    if not may_preview(visit.viewer):
        return None
    alone = not visit.viewer.can(Permission.READ_BILLING)
    minutes = connections * MINUTES_OF_MONTH
    whose = service.customer_id if visit.viewer.is_operator else UNSET
    try:
        found = await visit.api.run(
            prices.estimate(
                month=UNSET if alone else f"{visit.now:%Y-%m}",
                usage=[prices.SupposedUsage(region=region, minutes=minutes)],
                customer_id=whose,
            )
        )
    except Unauthorized:
        raise
    except HandoffApiError as error:
        return NO_PRICES if error.code == "no_price_book" else UNTOLD
    amount = found.totals.total if found.difference is None else found.difference
    return Preview(minutes, found, amount, alone)


def connections_of(text: str | None) -> int:
    """How many connections the preview supposes; 100 where that is not said. Raises Refused."""
    given = (text or "").strip()
    if not given:
        return 100
    if (
        not (given.isascii() and given.isdigit())
        or len(given) > 12
        or int(given) > MOST_CONNECTIONS
    ):
        raise Refused(
            400,
            "No such number of connections",
            f"It is {given[:40]!r}; allowed: 0 to {MOST_CONNECTIONS}, in digits alone, as 1000.",
        )
    return int(given)


async def enable(visit: Visit) -> Response:
    service_id = visit.request.path_params["service_id"]
    try:
        await visit.api.run(products.enable(service_id))
    except (Invalid, Conflict) as error:
        return await _shown(visit, status=error.status, error=said(error))
    check = await visit.api.run(products.check(service_id))
    missing = hindrances(check, active=check.version is not None)
    return visit.go(
        f"/services/{service_id}/websockets",
        flash=f"WebSockets is on, but nothing is handed off: {'; '.join(missing)}."
        if missing
        else "WebSockets is on. Upgrade requests are handed off from now on.",
    )


async def disable(visit: Visit) -> Response:
    service_id = visit.request.path_params["service_id"]
    keep_open = visit.field("open") == "keep"
    await visit.api.run(products.disable(service_id, keep_open=keep_open))
    return visit.go(
        f"/services/{service_id}/websockets",
        flash="WebSockets is off. "
        + (
            "Open connections live on, and are billed, until they end."
            if keep_open
            else "Open connections are being ended."
        ),
    )


async def disable_waf(visit: Visit) -> Response:
    service_id = visit.request.path_params["service_id"]
    await visit.api.run(products.disable(service_id, "ngwaf"))
    return visit.go(f"/services/{service_id}/websockets", flash="The next-gen WAF is off.")


_PAGE = "/services/{service_id}/websockets"
ROUTES = (
    Route(_PAGE, page(Permission.READ_CONFIG, show)),
    Route(f"{_PAGE}/cost", page(Permission.READ_BILLING, preview, or_=Permission.TOGGLE_PRODUCTS)),
    Route(f"{_PAGE}/enable", page(Permission.TOGGLE_PRODUCTS, enable), methods=["POST"]),
    Route(f"{_PAGE}/disable", page(Permission.TOGGLE_PRODUCTS, disable), methods=["POST"]),
    Route(f"{_PAGE}/waf/disable", page(Permission.TOGGLE_PRODUCTS, disable_waf), methods=["POST"]),
)
