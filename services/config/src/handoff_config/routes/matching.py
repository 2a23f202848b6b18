"""`/v1/services/{id}/versions/{n}/match`: the rule tester."""

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from handoff_config import rule_tester, schemas, service_commands, views
from handoff_config.routes.common import Ctx, Reader, service_for

router = APIRouter(tags=["versions"])


@router.post("/v1/services/{service_id}/versions/{version}/match", response_model=schemas.MatchOut)
async def match_request(
    service_id: str, version: int, body: schemas.MatchIn, ctx: Ctx, principal: Reader
) -> Response:
    """Which rule and backend of the version, a draft too, an upgrade request would take.

    Nothing is changed, and reading permission suffices. Whether WebSockets is enabled, entitlement
    and limits are left out; `websockets/check` says the first two.
    """
    service = await service_for(ctx, principal, service_id)
    found = service_commands.version_of(service, version)
    request = rule_tester.request_of(body.url, body.headers, body.subprotocols)
    return JSONResponse(views.match(service, found, rule_tester.outcome(found, request)))
