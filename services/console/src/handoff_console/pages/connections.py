"""Connections: the live table, one of them, and ending it."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from starlette.responses import Response
from starlette.routing import Route

from handoff_client import Conflict, Invalid, connections, stats
from handoff_client import users as client_users
from handoff_common.access import Permission
from handoff_console.board import Event
from handoff_console.connection_table import Asked, ConnectionTable
from handoff_console.connection_view import ConnectionSource, One
from handoff_console.context import Refused, Visit, page
from handoff_console.ends import TITLES
from handoff_console.event_stream import SIGNED_OUT, EventStream, signed_out
from handoff_console.feeds import Bearer, Topic
from handoff_console.filters import RANGE, BadFilter, field, filters_of
from handoff_console.viewer import SESSION_KEY


async def listed(visit: Visit) -> Response:
    """A page of a hundred; `at` names the older ones. A range that cannot be is mended where it was
    typed."""
    query, wrong = visit.request.query_params, dict[str, str]()
    try:
        asked = _asked(visit, query)
    except BadFilter as error:
        if error.name not in RANGE:
            raise _unusable(error) from None
        wrong = {error.name: str(error)}
        rest = {name: value for name, value in query.items() if name not in RANGE}
        asked = _asked(visit, rest)
    table = ConnectionTable(visit.console, asked)
    regions, view = await asyncio.gather(
        visit.api.run(stats.regions()), table.poll(visit.viewer.token)
    )
    held = asked.filters
    return visit.render(
        "connections.html",
        status=400 if wrong else 200,
        view=None if wrong else view,
        wrong=wrong,
        filters=held,
        from_field=query.get("from") if wrong else field(held.from_),
        to_field=query.get("to") if wrong else field(held.to),
        services=_options(table.names.items(), held.service_id),
        regions=_options(((one, one) for one in regions), held.region),
        reasons=_options(TITLES.items(), held.reason),
        with_cost=asked.with_cost,
        tiered=table.rates is not None and table.rates.tiered,
    )


async def stream(visit: Visit) -> Response:
    try:
        asked = _asked(visit, visit.request.query_params)
    except BadFilter as error:
        raise _unusable(error) from None
    topic = Topic(("connections", *asked), partial(ConnectionTable, visit.console, asked))
    return await _live(visit, topic)


async def shown(visit: Visit) -> Response:
    asked = _one(visit)
    source = ConnectionSource(visit.console, asked)
    view = await source.poll(visit.viewer.token)
    found = source.found
    if found is None or found.customer_id != asked.customer_id:
        # An operator sees everyone's; the page is about the customer that was chosen.
        raise Refused(404, "No such connection", "The customer has no connection with this id.")
    return visit.render("connection.html", view=view, connection=found, ending=asked.ending)


async def stream_one(visit: Visit) -> Response:
    asked = _one(visit)
    found = await visit.api.run(connections.get(asked.connection_id))
    if found.customer_id != asked.customer_id:
        raise Refused(404, "No such connection", "The customer has no connection with this id.")
    return await _live(
        visit, Topic(("connection", *asked), partial(ConnectionSource, visit.console, asked))
    )


async def end(visit: Visit) -> Response:
    connection_id = visit.request.path_params["connection_id"]
    path = f"/connections/{connection_id}"
    try:
        await visit.api.run(connections.end(connection_id, reason=visit.field("reason") or None))
    except Conflict:
        return visit.go(path, flash="It had ended already.")
    except Invalid as error:
        raise Refused(422, "Not ended", error.detail or error.title) from None
    at = visit.console.clock.now_ms() // 1_000
    return visit.go(f"{path}?ending={at}", flash="The edges were asked to end it.")


async def _live(visit: Visit, topic: Topic) -> Response:
    """The stream of a topic. Who is signed in with a token that has been revoked, or as somebody
    who may less by now, is asked to sign in again: what is shared is not theirs to see."""
    viewer = visit.viewer
    user = await visit.api.run(client_users.current())
    user_id = viewer.token if viewer.is_operator else user.id
    bearer = Bearer(viewer.token, user.role, user.customer_id, user_id)
    if user.role != viewer.role or user.customer_id not in (None, viewer.customer_id):
        visit.request.session.pop(SESSION_KEY, None)
        return signed_out()
    loop = asyncio.get_running_loop()
    return EventStream(partial(visit.console.feeds.seat, topic, bearer), _last, loop.time)


def _last(ended: str) -> Sequence[Event] | None:
    """What a page is told of a stream that does not begin again."""
    if ended == "revoked":
        return (SIGNED_OUT,)
    return () if ended == "final" else None


def _asked(visit: Visit, query: Mapping[str, str]) -> Asked:
    """Raises BadFilter."""
    return Asked(visit.customer_id, filters_of(query), visit.viewer.can(Permission.READ_BILLING))


def _unusable(error: BadFilter) -> Refused:
    return Refused(400, "This filter cannot be used", str(error))


def _one(visit: Visit) -> One:
    return One(
        visit.customer_id,
        visit.request.path_params["connection_id"],
        visit.viewer.can(Permission.READ_BILLING),
        _instant(visit.request.query_params.get("ending", "")),
    )


def _instant(text: str) -> int | None:
    """Seconds since the epoch; None for what is no such number."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None


def _options(found: Iterable[tuple[str, str]], held: str | None) -> list[tuple[str, str]]:
    """All, what there is, and what the filter names even where that is not there any more."""
    options = [("", "all"), *sorted(found, key=lambda one: one[1].casefold())]
    if held is not None and held not in {value for value, _ in options}:
        options.append((held, held))
    return options


ROUTES = (
    Route("/connections", page(Permission.READ_STATS, listed)),
    Route("/connections/stream", page(Permission.READ_STATS, stream)),
    Route("/connections/{connection_id}", page(Permission.READ_STATS, shown)),
    Route("/connections/{connection_id}/stream", page(Permission.READ_STATS, stream_one)),
    Route(
        "/connections/{connection_id}/end",
        page(Permission.END_CONNECTIONS, end),
        methods=["POST"],
    ),
)
