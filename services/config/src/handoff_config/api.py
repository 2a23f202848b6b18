"""The HTTP application of the config service: the routes, put together."""

from collections.abc import Callable, Sequence

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

import handoff_config
from handoff_common.access import AccessView
from handoff_common.http import create_app
from handoff_config.routes import (
    customers,
    history,
    matching,
    parts,
    products,
    services,
    sessions,
    tokens,
    users,
)
from handoff_config.writes import Context, RateLimitHeaders

CLASSIC_PATHS = (
    "/service",
    "/tokens",
    "/user",
    "/current_user",
    "/current_customer",
    "/customer",
)


def application(
    context: Context,
    access: AccessView,
    registry: CollectorRegistry,
    not_ready: Callable[[], Sequence[str]],
) -> FastAPI:
    app = create_app(
        title="Handoff config",
        version=handoff_config.__version__,
        classic_paths=CLASSIC_PATHS,
        registry=registry,
        not_ready=not_ready,
        open_paths=(sessions.PATH,),
    )
    app.state.access = access
    app.state.config = context
    for group in (
        services.router,
        services.versions,
        parts.router,
        matching.router,
        products.router,
        sessions.router,
        tokens.router,
        users.router,
        customers.router,
        history.router,
    ):
        app.include_router(group)
    app.add_middleware(RateLimitHeaders)
    return app
