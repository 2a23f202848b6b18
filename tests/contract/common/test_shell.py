"""The shell that every REST service shares: tokens, roles, error shapes, bodies, loops."""

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Request
from starlette.responses import JSONResponse

from handoff_common import codec
from handoff_common.access import (
    ALLOWED,
    AccessView,
    Permission,
    Principal,
    Role,
    authorize,
    new_token,
    token_hash,
)
from handoff_common.clock import ManualClock
from handoff_common.errors import ApiError, LogUnreachable, not_found
from handoff_common.events import AccessData, AccessSnapshot
from handoff_common.http import (
    StrictModel,
    classic_body,
    create_app,
    decode_cursor,
    encode_cursor,
    ignored_header,
)
from handoff_common.log import Message
from handoff_common.log_sqlite import SqliteLog
from handoff_common.service import LoopEnded, Service, running
from handoff_common.telemetry import new_registry
from handoff_common.topics import ACCESS

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Thing(StrictModel):
    name: str
    size: int = 1


def application(access: AccessView, reasons: list[str]) -> FastAPI:
    app = create_app(
        title="t",
        version="1",
        classic_paths=("/classic",),
        registry=new_registry(),
        not_ready=lambda: reasons,
        open_paths=("/v1/open",),
    )
    app.state.access = access

    @app.post("/v1/open")
    async def open_to_all(thing: Thing) -> dict[str, Any]:
        return {"name": thing.name}

    @app.get("/v1/things")
    async def things(
        principal: Annotated[Principal, Depends(authorize(Permission.READ_STATS))],
    ) -> dict[str, Any]:
        return {"login": principal.login}

    @app.post("/v1/things")
    async def make(
        thing: Thing, _: Annotated[Principal, Depends(authorize(Permission.WRITE_CONFIG))]
    ) -> dict[str, Any]:
        return {"name": thing.name}

    @app.post("/classic/echo")
    async def echo(
        request: Request, _: Annotated[Principal, Depends(authorize(Permission.READ_CONFIG))]
    ) -> JSONResponse:
        body = await classic_body(request, ("name", "shield", "use_ssl"))
        return JSONResponse(body.values, headers=ignored_header(body))

    @app.get("/classic/missing")
    async def missing() -> None:
        raise not_found("service", "x")

    @app.get("/v1/broken")
    async def broken() -> None:
        raise RuntimeError("a bug")

    return app


class Rig:
    def __init__(self, log: SqliteLog) -> None:
        self.log = log
        self.clock = ManualClock(NOW)
        self.access = AccessView(log, self.clock)
        self.reasons: list[str] = []
        transport = httpx.ASGITransport(
            application(self.access, self.reasons), raise_app_exceptions=False
        )
        self.http = httpx.AsyncClient(transport=transport, base_url="http://test")

    async def token(self, role: str, revision: int = 1, **fields: Any) -> str:
        token = new_token()
        data = AccessData(
            revision=revision,
            token_id=fields.pop("token_id", token),
            token_sha256=token_hash(token),
            customer_id="c",
            login=f"{role}@example.com",
            role=role,  # type: ignore[arg-type]
            created_at=NOW,
            **fields,
        )
        event = AccessSnapshot(id="i", source="s", subject="t", time=NOW, data=data)
        await self.log.append(ACCESS.name, [Message(data.token_id, codec.encode(event))])
        return token


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    log = await SqliteLog.open(tmp_path / "log.db")
    made = Rig(log)
    loop = asyncio.create_task(made.access.run())
    yield made
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    await made.http.aclose()
    await log.close()


async def test_a_token_works_as_soon_as_it_is_in_the_log(rig: Rig) -> None:
    for header in ("fastly-key", "authorization"):
        token = await rig.token("user")
        value = token if header == "fastly-key" else f"Bearer {token}"
        answer = await rig.http.get("/v1/things", headers={header: value})
        assert answer.json() == {"login": "user@example.com"}


@pytest.mark.parametrize("headers", [{}, {"fastly-key": "nobody"}, {"authorization": "Basic x"}])
async def test_no_valid_token_is_401_with_a_code(rig: Rig, headers: dict[str, str]) -> None:
    answer = await rig.http.get("/v1/things", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["type"].endswith(":no_valid_token")
    assert answer.headers["content-type"] == "application/problem+json"


async def test_revoked_and_expired_tokens_stop_working(rig: Rig) -> None:
    revoked = await rig.token("user", revoked_at=NOW)
    assert (await rig.http.get("/v1/things", headers={"fastly-key": revoked})).status_code == 401
    expiring = await rig.token("user", expires_at=NOW + timedelta(seconds=10))
    assert (await rig.http.get("/v1/things", headers={"fastly-key": expiring})).status_code == 200
    rig.clock.advance(seconds=10)
    assert (await rig.http.get("/v1/things", headers={"fastly-key": expiring})).status_code == 401


async def test_an_older_snapshot_does_not_bring_a_revoked_token_back(rig: Rig) -> None:
    await rig.token("user", revision=9, token_id="t", revoked_at=NOW)
    # Before the older one takes its place in the log.
    assert await rig.access.view.catch_up(timeout=10)
    old = await rig.token("user", revision=3, token_id="t")
    assert (await rig.http.get("/v1/things", headers={"fastly-key": old})).status_code == 401


@pytest.mark.parametrize("role", list(Role))
async def test_roles_hold(rig: Rig, role: Role) -> None:
    token = await rig.token(role)
    answer = await rig.http.post("/v1/things", json={"name": "a"}, headers={"fastly-key": token})
    allowed = Permission.WRITE_CONFIG in ALLOWED[role]
    assert answer.status_code == (200 if allowed else 403)
    assert allowed == (role in (Role.ENGINEER, Role.SUPERUSER, Role.OPERATOR))


async def test_a_read_only_token_cannot_write(rig: Rig) -> None:
    token = await rig.token("superuser", scope="global:read")
    headers = {"fastly-key": token}
    assert (await rig.http.get("/v1/things", headers=headers)).status_code == 200
    answer = await rig.http.post("/v1/things", json={"name": "a"}, headers=headers)
    assert answer.status_code == 403 and "global:read" in answer.json()["detail"]


async def test_wrong_fields_are_named_with_value_and_what_is_allowed(rig: Rig) -> None:
    token = await rig.token("engineer")
    answer = await rig.http.post(
        "/v1/things", json={"size": "big", "colour": 1}, headers={"fastly-key": token}
    )
    assert answer.status_code == 422
    found = {e["property"]: e["reason"] for e in answer.json()["errors"]}
    assert set(found) == {"name", "size", "colour"} and "big" in found["size"]
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_classic_bodies_keep_their_clients_conventions(rig: Rig) -> None:
    rig.http.headers["fastly-key"] = await rig.token("user")
    form = await rig.http.post(
        "/classic/echo", data={"name": "", "shield": "None", "use_ssl": "True", "locked": "False"}
    )
    assert form.json() == {"name": "", "shield": None, "use_ssl": "True"}
    assert form.headers["x-handoff-ignored"] == "locked"
    json = await rig.http.post("/classic/echo", json={"name": "a", "use_ssl": True})
    assert json.json() == {"name": "a", "use_ssl": True}
    empty = await rig.http.post("/classic/echo", headers={"content-type": "application/json"})
    assert empty.json() == {}
    broken = await rig.http.post("/classic/echo", content=b"{", headers={"content-type": "a/json"})
    assert broken.status_code == 400 and set(broken.json()) == {"msg", "detail"}


@pytest.mark.parametrize("path", ["/classic/echo", "/v1/things"])
async def test_a_body_is_read_no_further_than_the_bound(rig: Rig, path: str) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * 262_144

    headers = {"fastly-key": await rig.token("engineer"), "content-type": "application/json"}
    announced = await rig.http.post(path, content=b" " * 1_048_577, headers=headers)
    assert announced.status_code == 413
    answer = await rig.http.post(path, content=endless(), headers=headers)
    assert answer.status_code == 413 and "1048576" in answer.json()["detail"]
    # httpx hands over pieces that the application asked for, and none after that.
    assert sent == 5, "four are as long as the bound, and the fifth is beyond it"
    exact = await rig.http.post("/classic/echo", content=b" " * 1_048_576, headers=headers)
    assert exact.status_code == 200


@pytest.mark.parametrize("path", ["/classic/echo", "/v1/things"])
async def test_nothing_is_read_of_a_caller_without_a_token(rig: Rig, path: str) -> None:
    read = []

    async def body() -> AsyncIterator[bytes]:
        read.append(True)
        yield b"{"

    headers = {"content-type": "application/json"}
    answer = await rig.http.post(path, content=body(), headers=headers)
    assert not read
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"


async def test_an_open_path_takes_a_short_body_of_anyone(rig: Rig) -> None:
    assert (await rig.http.post("/v1/open", json={"name": "a"})).json() == {"name": "a"}
    headers = {"content-type": "application/json"}
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * 8_192

    for content in (b" " * 16_385, endless()):
        answer = await rig.http.post("/v1/open", content=content, headers=headers)
        assert answer.status_code == 413 and "16384" in answer.json()["detail"]
    assert sent == 3
    assert (await rig.http.post("/v1/open/more", json={"name": "a"})).status_code == 404


async def test_the_document_says_which_path_needs_no_token(rig: Rig) -> None:
    paths = (await rig.http.get("/openapi.json")).json()["paths"]
    assert paths["/v1/open"]["post"]["security"] == []
    assert "security" not in paths["/v1/things"]["post"]


async def test_a_log_that_is_away_is_no_fault_of_the_body(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*, timeout: float) -> bool:
        raise LogUnreachable("the broker does not answer")

    monkeypatch.setattr(rig.access.view, "catch_up", away)
    for path in ("/classic/echo", "/v1/things"):
        answer = await rig.http.post(path, json={}, headers={"fastly-key": "not known yet"})
        assert answer.status_code == 503 and answer.headers["retry-after"]


MALFORMED = {
    "a number of 5000 digits": b'{"name": ' + b"9" * 5_000 + b"}",
    "nested too deep": b'{"name": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested": b'{"name": ' + b"[" * 450 + b"]" * 450 + b"}",
    "no number": b'{"name": NaN}',
    "too large a number": b'{"name": 1e999}',
    "not UTF-8": b'{"name": "\xff"}',
    "half a pair": b'{"\\ud800": 1}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("path", ["/classic/echo", "/v1/things"])
async def test_no_body_breaks_a_service(rig: Rig, path: str, body: bytes) -> None:
    headers = {"fastly-key": await rig.token("engineer"), "content-type": "application/json"}
    answer = await rig.http.post(path, content=body, headers=headers)
    if body == MALFORMED["half a pair"]:
        assert answer.status_code == (200 if path == "/classic/echo" else 422)
    elif not (body == MALFORMED["nested"] and path == "/classic/echo"):
        assert answer.status_code in (400, 422), answer.text


async def test_errors_take_the_shape_of_their_path(rig: Rig) -> None:
    classic = await rig.http.get("/classic/missing")
    assert classic.status_code == 404 and classic.json()["msg"] == "Record not found"
    unknown = await rig.http.get("/v1/nowhere")
    assert unknown.status_code == 404 and unknown.json()["type"].endswith("no_such_path")
    broken = await rig.http.get("/v1/broken")
    assert broken.status_code == 500 and "a bug" not in broken.text


async def test_readiness_says_why_not(rig: Rig) -> None:
    assert (await rig.http.get("/readyz")).status_code == 200
    rig.reasons.append("connections: 5 records behind")
    answer = await rig.http.get("/readyz")
    assert answer.status_code == 503 and answer.json()["reasons"] == rig.reasons
    assert (await rig.http.get("/healthz")).status_code == 200


def test_cursors_come_back_or_are_refused() -> None:
    assert decode_cursor(encode_cursor("a", 7), (str, int)) == ["a", 7]
    deep = base64.urlsafe_b64encode(b"[" * 3_000).decode()
    wrong = (encode_cursor(7, "a"), encode_cursor("a", True), encode_cursor("a", 2**63))
    for bad in ("", "!", "é", deep, *wrong, encode_cursor("\ud800", 7), encode_cursor("\0", 7)):
        with pytest.raises(ApiError, match="cursor"):
            decode_cursor(bad, (str, int))
    assert decode_cursor(encode_cursor("a", 2**63 - 1), (str, int)) == ["a", 2**63 - 1]


async def test_a_loop_that_dies_ends_the_service() -> None:
    stopped = []

    async def dies() -> None:
        raise RuntimeError("no more")

    async def stop() -> None:
        stopped.append(True)

    app = FastAPI()
    async with running(Service("s", app, {"dies": dies}, on_stop=stop)) as failed:
        with pytest.raises(LoopEnded, match="no more"):
            await asyncio.wait_for(asyncio.shield(failed), 5)
    assert stopped == [True]


async def test_loops_end_after_on_stop_has_run() -> None:
    order = []

    async def loop() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            order.append("loop")

    async def stop() -> None:
        order.append("stop")

    async with running(Service("s", FastAPI(), {"loop": loop}, on_stop=stop)) as failed:
        await asyncio.sleep(0)
        assert not failed.done()
    assert order == ["stop", "loop"]


async def test_a_stop_is_cut_off_after_the_services_own_time() -> None:
    ended = []

    async def loop() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def stop() -> None:
        await asyncio.Event().wait()

    service = Service("s", FastAPI(), {"loop": loop}, on_stop=stop, stop_seconds=0.01)
    async with asyncio.timeout(5), running(service):
        await asyncio.sleep(0)
    assert ended == [True]
