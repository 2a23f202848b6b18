"""The frame that every page runs in: who is let in, what is refused, what headers say."""

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from handoff_console.security import CONTENT_SECURITY_POLICY
from support.console import visitor
from support.embedded import Embedded, Tenant, make_tenant

pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("console-frame")]


async def test_nobody_is_asked_to_sign_in_and_led_back(system: Embedded, tenant: Tenant) -> None:
    async with visitor(system) as someone:
        answer = await someone.get("/services?page=1")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/sign-in?next=/services%3Fpage%3D1"
        await someone.get("/sign-in?next=/services%3Fpage%3D1")
        answer = await someone.post(
            "/sign-in", token=tenant.tokens["user"], next="/services?page=1"
        )
        assert answer.headers["location"] == "/services?page=1"
        answer = await someone.get("/services?page=1")
        assert answer.status_code == 200 and tenant.domain in answer.text
        assert tenant.tokens["user"] not in answer.text


async def test_what_the_cookie_and_the_headers_say(system: Embedded) -> None:
    async with visitor(system) as someone:
        answer = await someone.get("/sign-in")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=lax" in cookie
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert "unsafe" not in CONTENT_SECURITY_POLICY
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        static = answer.text.split('href="/static/app.css')[1].split('"')[0]
        kept = await someone.get(f"/static/app.css{static}")
        assert "immutable" in kept.headers["cache-control"]
        assert (await someone.get("/static/app.css")).headers["cache-control"] == "no-cache"
        assert (await someone.get("/static/../app.py")).status_code == 404
        assert (await someone.get("/static/%2e%2e/app.py")).status_code == 404


async def test_forged_and_stale_forms_are_refused(system: Embedded, tenant: Tenant) -> None:
    async with visitor(system) as someone:
        await someone.sign_in(tenant.tokens["engineer"])
        path = f"/services/{tenant.service_id}/websockets/enable"
        good = someone.csrf
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            answer = await someone.http.post(path, data={"csrf": good}, headers=headers)
            assert answer.status_code == 403 and "expired" in answer.text
        assert (await someone.http.post(path)).status_code == 403
        assert (await someone.http.post(path, data={"csrf": "x" * 43})).status_code == 403
        async with system.api(tenant.tokens["user"]) as api:
            check = await api.call("GET", f"/v1/services/{tenant.service_id}/websockets/check")
            assert check["enabled"] is False
        answer = await someone.post(path)
        assert answer.status_code == 303


async def test_a_form_costs_no_more_memory_than_a_form_may_be_long(system: Embedded) -> None:
    """Of somebody who has not signed in, and without its length being announced."""

    async def body() -> AsyncIterator[bytes]:
        for number in range(150):
            yield f"&f{number}=".encode() + b"x" * 900_000

    def highest() -> int:
        assert system.process is not None
        status = Path(f"/proc/{system.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    before = highest()
    async with visitor(system) as someone:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await someone.http.post("/sign-in", content=body(), headers=kind)
        assert answer.status_code == 413 and "<main" in answer.text
    assert highest() - before < 50_000_000


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/x-www-form-urlencoded", b"a=1&" * 300, 400),
        ("application/x-www-form-urlencoded", b"a=" + b"x" * 20_000, 413),
        ("application/x-www-form-urlencoded", b"csrf=%ff\xff%00", 403),
        ("multipart/form-data", b"x", 403),
        ("multipart/form-data; boundary=a", b"--a\r\nfoo\r\n\r\nx", 403),
        (
            "multipart/form-data; boundary=a; charset=unicode_escape",
            b'--a\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n\\ud800\r\n--a--\r\n',
            403,
        ),
    ],
)
async def test_what_is_no_form_of_ours_is_refused_on_a_page(
    system: Embedded, kind: str, body: bytes, status: int
) -> None:
    async with visitor(system) as someone:
        answer = await someone.http.post("/sign-in", content=body, headers={"Content-Type": kind})
        assert answer.status_code == status
        assert "<main" in answer.text


async def test_a_change_is_put_down_to_who_made_it(system: Embedded, tenant: Tenant) -> None:
    """And so are failures to sign in: one address cannot lock everybody else's out."""
    async with visitor(system) as someone, system.api(tenant.tokens["superuser"]) as api:
        # As the proxy in front of the console says it, which this machine may.
        someone.http.headers["X-Forwarded-For"] = "203.0.113.9"
        await someone.sign_in(tenant.tokens["superuser"])
        await someone.post(f"/services/{tenant.service_id}/websockets/enable")
        entries = (await api.call("GET", f"/v1/services/{tenant.service_id}/history"))["data"]
        assert (entries[0]["object"], entries[0]["ip"]) == ("product", "203.0.113.9")


@pytest.mark.parametrize("said", ["unknown", "é", "<b>", "1.2.3.4:x", ",", "fe80::1%é"])
async def test_what_is_no_address_is_put_down_to_none(
    system: Embedded, tenant: Tenant, said: str
) -> None:
    async with visitor(system) as someone, system.api(tenant.tokens["superuser"]) as api:
        someone.http.headers = httpx.Headers(
            [*someone.http.headers.raw, (b"X-Forwarded-For", said.encode())]
        )
        await someone.sign_in(tenant.tokens["superuser"])
        answer = await someone.post(f"/services/{tenant.service_id}/websockets/enable")
        assert answer.status_code == 303
        entries = (await api.call("GET", f"/v1/services/{tenant.service_id}/history"))["data"]
        assert entries[0]["ip"] == "127.0.0.1"


@pytest.mark.parametrize("behind", ["é", "\r\nX-Evil: 1", "\u2028"])
async def test_where_scripts_are_sent_is_one_header(
    system: Embedded, tenant: Tenant, behind: str
) -> None:
    path = f"/services/{tenant.service_id}/versions"
    async with visitor(system) as someone:
        await someone.sign_in(tenant.tokens["engineer"])
        someone.http.headers["HX-Request"] = "true"
        answer = await someone.post(f"{path}/1/clone", next=f"{path}/{{draft}}/{behind}")
        assert answer.status_code == 204 and "x-evil" not in answer.headers
        assert answer.headers["hx-redirect"].startswith(path)


async def test_signing_in_begins_a_new_session(system: Embedded, tenant: Tenant) -> None:
    async with visitor(system) as someone:
        await someone.get("/sign-in")
        planted = someone.csrf
        await someone.sign_in(tenant.tokens["user"])
        assert someone.csrf != planted


async def test_the_longest_names_fit_into_a_cookie(system: Embedded) -> None:
    """Browsers keep none that is longer than 4 KiB: nobody could sign in."""
    name, password = "\u540d" * 255, "correct horse battery"
    async with system.api() as api, visitor(system) as someone:
        body = {"name": name, "account_type": "paid", "billing_email": "b@example.com"}
        customer = await api.call("POST", "/v1/customers", body)
        user = {"login": name, "name": name, "role": "superuser", "password": password}
        await api.call("POST", f"/v1/customers/{customer['id']}/users", user)
        await someone.get("/sign-in")
        answer = await someone.post("/sign-in", login=name, password=password)
        assert answer.status_code == 303 and len(answer.headers["set-cookie"]) < 4_096
        await someone.get("/users")
        answer = await someone.post("/users", login="\u4eba" * 255, role="user")
        assert answer.status_code == 303 and len(answer.headers["set-cookie"]) < 4_096


async def test_a_cookie_of_another_key_is_nobody(system: Embedded, tenant: Tenant) -> None:
    async with visitor(system) as someone:
        await someone.sign_in(tenant.tokens["user"])
        [cookie] = someone.http.cookies.jar
        assert cookie.value is not None
        payload, _, signature = cookie.value.rpartition(".")
        someone.http.cookies.set("handoff", f"{payload}.{signature[::-1]}", domain=cookie.domain)
        assert (await someone.get("/services")).status_code == 303


async def test_a_revoked_token_signs_out(system: Embedded, tenant: Tenant) -> None:
    async with visitor(system) as someone, system.api(tenant.tokens["user"]) as api:
        await someone.sign_in(tenant.tokens["user"])
        assert (await someone.get("/services")).status_code == 200
        await api.call("DELETE", "/tokens/self")
        answer = await someone.get("/services")
        assert answer.status_code == 303 and answer.headers["location"].startswith("/sign-in")


@pytest.mark.parametrize("path", ["/connections/stream", "/connections/x/stream"])
async def test_a_live_page_whose_session_has_ended_says_so(system: Embedded, path: str) -> None:
    """It asks again by itself: a page to sign in on would be nothing to it but a broken stream."""
    async with visitor(system) as someone:
        answer = await someone.get(path, Accept="text/event-stream")
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "event: status\n" in answer.text and "Sign in again" in answer.text
        assert answer.text.endswith("event: ended\ndata: revoked\n\n")


@pytest.mark.parametrize("name", ["test", "session"])
async def test_signing_out_leaves_a_token_that_was_given(
    system: Embedded, tenant: Tenant, name: str
) -> None:
    """Whatever it is called."""
    async with system.api(tenant.tokens["user"]) as api:
        made = await api.call("POST", "/tokens", {"name": name})
    token = made["access_token"]
    async with visitor(system) as someone, system.api(token) as api:
        await someone.sign_in(token)
        await someone.get("/services")
        answer = await someone.post("/sign-out")
        assert answer.status_code == 303
        assert (await someone.get("/services")).status_code == 303
        assert (await api.call("GET", "/tokens/self"))["name"] == name


@pytest.mark.parametrize(
    ("role", "path", "status"),
    [
        ("user", "/services/new", 403),
        ("billing", "/services/new", 403),
        ("engineer", "/services/new", 200),
        ("engineer", "/no-such-page", 404),
        ("user", "/services/no-such-service", 404),
    ],
)
async def test_what_a_role_may_not_is_refused(
    system: Embedded, tenant: Tenant, role: str, path: str, status: int
) -> None:
    async with visitor(system) as someone:
        await someone.get("/sign-in")
        await someone.post("/sign-in", token=tenant.tokens[role])
        answer = await someone.get(path)
        assert answer.status_code == status
        assert answer.headers["content-type"].startswith("text/html")
        if role == "user":
            services = await someone.get("/services")
            assert "New service" not in services.text


async def test_what_a_role_may_not_is_refused_when_tried(system: Embedded, tenant: Tenant) -> None:
    """The form of another's page, sent with one's own session."""
    async with visitor(system) as someone:
        await someone.get("/sign-in")
        await someone.post("/sign-in", token=tenant.tokens["user"])
        await someone.get("/services")
        for path in (
            "/services",
            f"/services/{tenant.service_id}/delete",
            f"/services/{tenant.service_id}/websockets/enable",
            f"/services/{tenant.service_id}/versions/1/clone",
            f"/services/{tenant.service_id}/limits",
            "/customer-shown",
        ):
            assert (await someone.post(path, name="x")).status_code == 403, path


async def test_another_customer_s_service_is_not_there(system: Embedded, tenant: Tenant) -> None:
    other = await make_tenant(system, origin_port=9, domain="other.example.com")
    async with visitor(system) as someone:
        await someone.sign_in(tenant.tokens["superuser"])
        assert other.domain not in (await someone.get("/services")).text
        for path in ("", "/websockets", "/versions/1", "/history", "/limits", "/tester"):
            answer = await someone.get(f"/services/{other.service_id}{path}")
            assert answer.status_code == 404, path


async def test_an_operator_sees_a_customer_s_pages(system: Embedded, tenant: Tenant) -> None:
    async with visitor(system) as operator:
        await operator.get("/sign-in")
        await operator.post("/sign-in", token=system.operator_token)
        answer = await operator.get("/services")
        assert answer.status_code == 409 and "Choose a customer" in answer.text
        answer = await operator.post("/customer-shown", customer_id=tenant.customer_id)
        assert answer.headers["location"] == "/services"
        answer = await operator.get("/services")
        assert tenant.domain in answer.text and "signed" not in answer.text


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'])
async def test_markup_is_text(system: Embedded, tenant: Tenant, text: str) -> None:
    """Wherever a customer's own words are shown."""
    async with visitor(system) as someone, system.api(tenant.tokens["superuser"]) as api:
        await someone.sign_in(tenant.tokens["superuser"])
        service = f"/service/{tenant.service_id}"
        await api.call("PUT", service, {"comment": text})
        clone = await api.call("PUT", f"{service}/version/1/clone")
        draft = f"{service}/version/{clone['number']}"
        await api.call("PUT", draft, {"comment": text})
        await api.call("PUT", f"{draft}/backend/origin", {"comment": text, "shield": text[:60]})
        base = f"/services/{tenant.service_id}"
        pages = [
            base,
            f"{base}/versions/{clone['number']}",
            f"{base}/versions/{clone['number']}/backends/origin",
            f"{base}/history",
            f"{base}/websockets",
            f"{base}/tester?url={text}",
        ]
        for path in pages:
            answer = await someone.get(path)
            assert text not in answer.text, path
            assert "<script>alert" not in answer.text and "<img" not in answer.text, path
        answer = await someone.post("/services", name=f"{text}/")
        assert answer.status_code == 422
        assert text not in answer.text and "printable characters" in answer.text


async def test_a_name_that_is_taken_is_said_beside_what_was_typed(
    system: Embedded, tenant: Tenant
) -> None:
    async with visitor(system) as someone:
        await someone.sign_in(tenant.tokens["superuser"])
        answer = await someone.post("/services", name=tenant.domain, comment="for the team")
        assert answer.status_code == 409 and 'value="for the team"' in answer.text


async def test_a_page_is_small(system: Embedded, tenant: Tenant) -> None:
    """What a first visit loads, compressed: the page and all that it names."""
    async with visitor(system) as someone:
        await someone.sign_in(tenant.tokens["superuser"])
        total = 0
        page = await someone.get(f"/services/{tenant.service_id}")
        assert page.headers["content-encoding"] == "gzip"
        total += len(gzip.compress(page.content))
        for part in page.text.split('"/static/')[1:]:
            loaded = await someone.get("/static/" + part.split('"')[0])
            assert loaded.status_code == 200
            total += len(gzip.compress(loaded.content))
        assert total < 100 * 1024, total


async def test_programs_are_told_in_their_own_form(system: Embedded) -> None:
    async with visitor(system) as someone:
        answer = await someone.get("/v2/nothing", Accept="application/json")
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "urn:handoff:error:no_such_path"


async def test_a_token_that_nobody_has_is_refused(system: Embedded) -> None:
    async with visitor(system) as someone:
        await someone.get("/sign-in")
        answer = await someone.post("/sign-in", token="no-such-token")
        assert answer.status_code == 401 and "No such token" in answer.text
        assert "no-such-token" not in answer.text
