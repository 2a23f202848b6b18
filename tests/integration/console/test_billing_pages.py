"""Invoices, operations, customers, users and price books, over a month that has been closed.

Names hold markup wherever the APIs take it; no page may let it through.
"""

import asyncio
import csv
import io
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from rich.console import Console

from handoff_common.log import Message
from handoff_common.topics import CONNECTIONS
from handoff_standalone.demo.place import Customer, Place
from handoff_standalone.demo.story import close_a_month
from handoff_standalone.rest import Api
from handoff_standalone.settings import StandaloneSettings
from handoff_standalone.system import system as in_process
from support.console import Visitor, console_over, visitor
from support.embedded import Embedded, make_tokens, shared

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("console-billing")]
MARKUP = "<script>alert(\"1\")<script> & 'Co'"
ENVIRON = {
    "HANDOFF_EDGE_HOST": "127.0.0.1",
    "HANDOFF_EDGE_PORT": "0",
    "HANDOFF_EDGE_ADMIN_PORT": "0",
    "HANDOFF_DRAIN_GRACE": "0",
    "HANDOFF_DRAIN_SPREAD": "0",
    "HANDOFF_WATERMARK_INTERVAL": "0.5",
}


class Closed(NamedTuple):
    """A system with a final invoice of the month that has ended, a customer whose invoice of it is
    held by a parked record, and a token per role of the first."""

    system: Embedded
    customer_id: str
    service_id: str
    invoice: dict[str, Any]
    held_customer_id: str
    tokens: dict[str, str]


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    data = tmp_path_factory.mktemp("billing") / "data"
    customer_id, service_id, invoice, held = asyncio.run(_recorded(data))
    with shared(data) as running:
        tokens = asyncio.run(make_tokens(running, customer_id))
        yield Closed(running, customer_id, service_id, invoice, held, tokens)


async def _recorded(data: Path) -> tuple[str, str, dict[str, Any], str]:
    async with in_process(StandaloneSettings(data_dir=data, api_port=0), ENVIRON) as one:
        token = (data / "operator-token").read_text().strip()
        async with Api(one.endpoints.api_url, token) as operator:
            customer_id = await _customer(operator, f"{MARKUP} I")
            held = await _customer(operator, f"{MARKUP} II")
            service = await operator.call(
                "POST",
                "/service",
                {"name": MARKUP, "type": "vcl", "customer_id": customer_id},
            )
            place = Place(one.endpoints.api_url, 0, one.log, token)
            invoice = await close_a_month(
                place, Customer(customer_id, service["id"], "", "", ""), Console(quiet=True)
            )
            query = {"customer_id": held, "month": invoice["period_start"][:7]}
            await operator.call("GET", "/v1/invoices", query=query)
            await one.log.append(CONNECTIONS.name, [Message("x", b"no event <i>x</i>")])
    return customer_id, service["id"], invoice, held


async def _customer(operator: Api, name: str) -> str:
    body = {"name": name, "account_type": "paid", "billing_email": "r@example.com"}
    made: str = (await operator.call("POST", "/v1/customers", body))["id"]
    return made


@asynccontextmanager
async def signed_in(closed: Closed, role: str) -> AsyncIterator[Visitor]:
    """role: `operator`, or one of the first customer's."""
    token = closed.system.operator_token if role == "operator" else closed.tokens[role]
    async with visitor(closed.system) as someone:
        await someone.sign_in(token)
        yield someone


def assert_escaped(text: str) -> None:
    assert "<script>alert" not in text and "<i>x" not in text
    assert "style=" not in text and " onclick" not in text


async def test_from_the_bill_down_to_the_connections(closed: Closed) -> None:
    invoice_id, number = closed.invoice["invoice_id"], closed.invoice["number"]
    async with signed_in(closed, "billing") as biller:
        listed = await biller.get("/invoices")
        assert listed.status_code == 200
        assert number in listed.text and f'href="/invoices/{invoice_id}"' in listed.text
        assert "Expected at its end" in listed.text
        assert "&lt;script&gt;alert(&#34;1&#34;)" in listed.text
        assert_escaped(listed.text)

        shown = await biller.get(f"/invoices/{invoice_id}")
        assert shown.status_code == 200
        minutes = closed.invoice["minutes"]
        assert f"{minutes:,}".replace(",", "\u202f") in shown.text
        assert "million minutes at $0.25" in shown.text
        assert "Make it final" not in shown.text and "/customers/" not in shown.text
        assert_escaped(shown.text)

        line = await biller.get(f"/invoices/{invoice_id}/lines/1")
        assert await _minutes_of_pages(biller, f"/invoices/{invoice_id}/lines/1") == minutes
        links = re.findall(r'href="(/connections\?[^"]+)"', line.text)
        assert links and all(f"service_id={closed.service_id}" in link for link in links)
        assert "region=europe&amp;from=" in links[0] and "&amp;to=" in links[0]
        assert_escaped(line.text)
        assert (await biller.get(f"/invoices/{invoice_id}/lines/99")).status_code == 404


async def _minutes_of_pages(biller: Visitor, path: str) -> int:
    """What the pages of a line say that their rows have."""
    minutes, at = 0, ""
    while True:
        text = (await biller.get(path + at)).text
        [counted] = re.findall(r"The rows of this page have ([^ ]+) of", text)
        minutes += int(counted.replace("\u202f", ""))
        following = re.findall(r'href="(\?at=[^"]+)"', text)
        if not following:
            return minutes
        [at] = following


async def test_an_invoice_is_verified_when_it_is_looked_at(closed: Closed) -> None:
    path = f"/invoices/{closed.invoice['invoice_id']}/verification"
    async with signed_in(closed, "billing") as biller:
        page = await biller.get(path)
        assert "Verified here just now" in page.text and "<html" in page.text
        assert closed.invoice["final"]["content_hash"] in page.text
        assert f"handoff verify-invoice {closed.invoice['number']}" in page.text
        part = await biller.get(path, **{"HX-Request": "true"})
        assert "Verified here just now" in part.text and "<html" not in part.text


class Changing(httpx.AsyncHTTPTransport):
    """The way to the APIs, on which somebody changes the JSON of one path."""

    def __init__(self, path: str, change: Callable[[Any], None]) -> None:
        super().__init__()
        self._path = path
        self._change = change

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await super().handle_async_request(request)
        if request.method != "GET" or request.url.path != self._path:
            return answer
        body = json.loads(await answer.aread())
        self._change(body)
        return httpx.Response(200, json=body)


async def test_a_proof_that_was_tampered_with_fails_loudly(closed: Closed, tmp_path: Path) -> None:
    def cheaper(proof: Any) -> None:
        proof["document"]["lines"][-1]["amount"] = "0.01"

    path = f"/invoices/{closed.invoice['invoice_id']}"
    changing = Changing(f"/v1{path}/proof", cheaper)
    async with console_over(
        closed.system.api_url, tmp_path, closed.tokens["billing"], changing
    ) as biller:
        page = await biller.get(f"{path}/verification")
    assert "This invoice is not what it says" in page.text and 'role="alert"' in page.text
    assert "Verified here just now" not in page.text
    assert page.text.count(">differs<") == 3


async def test_what_came_late_and_what_corrects_it(closed: Closed, tmp_path: Path) -> None:
    def late(invoice: Any) -> None:
        line = {"kind": "usage", "product": "connection_minutes", "region": "europe"}
        lines = [line | {"raw_quantity": -20, "amount": "-3.5"}]
        invoice["late_usage"] = {"amount": "-3.5", "lines": lines, "next_month": None}
        invoice["corrected_by"] = [{"number": "INV-2026-000009", "amount": "1.25"}]
        forced = {"reason": MARKUP, "overridden": [{"code": "grace", "detail": "it was early"}]}
        invoice["final"]["forced"] = forced
        corrects = {"invoice": "INV-2026-000008", "period_start": invoice["period_start"]}
        about = {"kind": "correction", "tiers": [], "corrects": corrects | {"kind": "usage"}}
        invoice["lines"][0] |= about

    path = f"/invoices/{closed.invoice['invoice_id']}"
    operator, changing = closed.system.operator_token, Changing(f"/v1{path}", late)
    async with console_over(closed.system.api_url, tmp_path, operator, changing) as someone:
        page = await someone.get(path)
        for text in ("Came late", "−$3.50", "Issue a correction", "INV-2026-000009: $1.25"):
            assert text in page.text, text
        assert "Corrects INV-2026-000008" in page.text and "passed over: grace" in page.text
        assert_escaped(page.text)
        vain = await someone.post(f"{path}/correct", reason="")
        assert vain.status_code == 409 and "Goes on the next invoice" in vain.text


async def test_the_csv_is_the_apis(closed: Closed) -> None:
    async with signed_in(closed, "billing") as biller:
        answer = await biller.get(f"/invoices/{closed.invoice['invoice_id']}.csv")
        assert answer.headers["content-type"].startswith("text/csv")
        name = f'attachment; filename="{closed.invoice["number"]}.csv"'
        assert answer.headers["content-disposition"] == name
        assert len(list(csv.DictReader(io.StringIO(answer.text)))) == len(closed.invoice["lines"])


@pytest.mark.parametrize(
    ("role", "path", "status"),
    [
        ("user", "/invoices", 403),
        ("engineer", "/invoices/1", 403),
        ("engineer", "/users", 403),
        ("billing", "/users", 403),
        ("billing", "/operations", 403),
        ("superuser", "/operations", 403),
        ("superuser", "/operations/live", 403),
        ("superuser", "/operations/parked", 403),
        ("superuser", "/customers", 403),
        ("superuser", "/price-books", 403),
        ("superuser", "/new-price-book", 403),
        ("superuser", "/users", 200),
        ("user", "/account", 200),
        ("operator", "/invoices", 409),
        ("operator", "/account", 200),
        ("operator", "/price-books/example/versions/9", 404),
        ("billing", "/invoices/999999", 404),
        ("billing", "/invoices/../x", 404),
        ("billing", "/invoices/nothing", 404),
    ],
)
async def test_who_may_see_what(closed: Closed, role: str, path: str, status: int) -> None:
    async with signed_in(closed, role) as someone:
        answer = await someone.get(path)
        assert answer.status_code == status
        offered = await someone.get("/account")
        assert ('href="/users"' in offered.text) == (role == "superuser")
        assert ('href="/operations"' in offered.text) == (role == "operator")


async def test_another_customers_invoice_does_not_exist(closed: Closed) -> None:
    async with closed.system.api() as operator:
        query = {"customer_id": closed.held_customer_id}
        other = (await operator.call("GET", "/v1/invoices", query=query))["data"][0]
    async with signed_in(closed, "superuser") as someone:
        for path in ("", ".csv", "/verification", "/lines/1"):
            answer = await someone.get(f"/invoices/{other['invoice_id']}{path}")
            assert answer.status_code == 404, path
        for act in ("finalize", "correct"):
            answer = await someone.post(f"/invoices/{other['invoice_id']}/{act}", reason="x")
            assert answer.status_code == 403, act


async def test_what_holds_an_invoice_is_decided_and_it_is_made_final(closed: Closed) -> None:
    async with signed_in(closed, "operator") as operator:
        overview = await operator.get("/operations")
        assert_escaped(overview.text)
        assert "Records wait for a decision" in overview.text
        assert "recorded-edge" in overview.text and closed.invoice["number"] in overview.text
        live = await operator.get("/operations/live", **{"HX-Request": "true"})
        assert "<html" not in live.text and "recorded-edge" in live.text

        query = {
            "customer_id": closed.held_customer_id,
            "month": closed.invoice["period_start"][:7],
        }
        async with closed.system.api() as api:
            [draft] = (await api.call("GET", "/v1/invoices", query=query))["data"]
        path = f"/invoices/{draft['invoice_id']}"
        held = await operator.get(path)
        assert "Retry or discard each of them." in held.text and "Pass over it" in held.text
        refused = await operator.post(f"{path}/finalize", reason="")
        assert refused.status_code == 409 and "Not final: it is held" in refused.text

        parked = await operator.get("/operations/parked")
        assert "no event &lt;i&gt;x" in parked.text
        assert_escaped(parked.text)
        [spot] = set(re.findall(r'action="(/operations/parked/\d+/\d+)"', parked.text))
        nothing = await operator.post(spot, decision="discard", reason="")
        assert nothing.status_code == 422 and "field wrong" in nothing.text
        assert (await operator.post(spot, decision="keep", reason="x")).status_code == 422
        vain = await operator.post(spot, decision="retry", reason='because "so"')
        assert vain.status_code == 409 and "can only be discarded" in vain.text
        assert "because &#34;so&#34;" in vain.text, "what was typed is kept"
        done = await operator.post(spot, decision="discard", reason="no event")
        assert done.status_code == 303
        assert "Discarded" in (await operator.get("/operations/parked")).text
        again = await operator.post(spot, decision="discard", reason="once more")
        assert again.status_code == 409 and "discard, by" in again.text

        final = await _finalized(operator, path)
        assert "INV-" in final and "Make it final" not in final


async def _finalized(operator: Visitor, path: str) -> str:
    """As an operator would who waits until nothing holds it; in the end, the page."""
    async with asyncio.timeout(60):
        while True:
            answer = await operator.post(f"{path}/finalize")
            if answer.status_code == 303:
                return (await operator.get(path)).text
            assert answer.status_code == 409


async def test_a_customer_from_making_to_deleting(closed: Closed) -> None:
    async with signed_in(closed, "operator") as operator:
        await operator.get("/customers/new")
        wrong = await operator.post(
            "/customers", name="New & <b>bold", account_type="paid", billing_email="no address"
        )
        assert wrong.status_code == 422 and "New &amp; &lt;b&gt;bold" in wrong.text
        assert 'id="billing_email-note"' in wrong.text and "field wrong" in wrong.text
        made = await operator.post("/customers", name="New & <b>bold", account_type="paid")
        path = made.headers["location"]
        page = await operator.get(path)
        assert "New &amp; &lt;b&gt;bold" in page.text and "<b>bold" not in page.text
        assert "not entitled" in page.text
        etag = _value(page.text, "etag")

        wrong = await operator.post(
            f"{path}/contracts", starts_at="2026-11-01T00:00", ends_at="2026-10-01T00:00"
        )
        assert wrong.status_code == 422 and "is not after starts_at" in wrong.text
        assert 'value="2026-10-01T00:00"' in wrong.text
        wrong = await operator.post(f"{path}/contracts", starts_at="soon")
        assert wrong.status_code == 422 and "is no date and time" in wrong.text
        await operator.post(f"{path}/contracts", starts_at="2026-10-01T00:00", ends_at="")
        page = await operator.get(path)
        assert "entitled, contract in force" in page.text
        [contract] = set(re.findall(rf'action="({path}/contracts/[^"]+)"', page.text))
        await operator.post(contract, ends_at="2026-10-02T00:00")
        page = await operator.get(path)
        assert "not entitled, contract ended" in page.text
        assert 'name="ends_at" type="datetime-local" value="2026-10-02T00:00"' in page.text
        async with closed.system.api() as api:
            body = {"product": "ngwaf", "starts_at": "2026-10-01T00:00:00Z", "ends_at": None}
            await api.call("POST", f"/v1{path}/contracts", body)
        assert "not entitled, contract ended" in (await operator.get(path)).text

        late = await operator.post(
            path, name="Other", account_type="trial", billing_email="", etag=etag
        )
        assert late.status_code == 412 and "Somebody else has changed this" in late.text
        assert 'value="Other"' in late.text
        saved = await operator.post(
            path, name="Other", account_type="trial", etag=_value(late.text, "etag")
        )
        assert saved.status_code == 303
        await operator.post(f"{path}/suspension", suspended="yes")
        assert "the account is suspended" in (await operator.get(path)).text
        await operator.post(f"{path}/suspension", suspended="no")
        page = await operator.get(path)
        assert "/suspension" in page.text and ">Resume<" not in page.text and "Other" in page.text

        terms = {"price_book_id": "example", "effective_from": "2026-13", "discount_percent": "200"}
        wrong = await operator.post(f"{path}/pricing", **terms)
        assert wrong.status_code == 422 and wrong.text.count("field wrong") == 2
        assert 'value="200"' in wrong.text
        month = _next_month()
        agreed = terms | {"effective_from": month, "discount_percent": "10", "coupon.code": "<X"}
        wrong = await operator.post(f"{path}/pricing", **agreed)
        assert wrong.status_code == 422, "a coupon has a percentage or an amount"
        done = await operator.post(f"{path}/pricing", **agreed, **{"coupon.percent": "5"})
        assert done.status_code == 303
        page = await operator.get(f"{path}/pricing")
        assert f"From {month}" in page.text and "&lt;X" in page.text
        for name, held in (("discount_percent", "10"), ("coupon.percent", "5")):
            assert f'name="{name}" type="text" value="{held}"' in page.text, "what holds is kept"

        shown = await operator.post("/customer-shown", customer_id=path.rpartition("/")[2])
        assert shown.headers["location"] == "/services"
        assert (await operator.get("/invoices")).status_code == 200
        assert (await operator.get("/users")).status_code == 200
        gone = await operator.post(f"{path}/delete")
        assert gone.headers["location"] == "/customers"


def _next_month() -> str:
    return f"{datetime.now(UTC).replace(day=1) + timedelta(days=40):%Y-%m}"


def _value(text: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', text)
    assert found is not None
    return found[1].replace("&#34;", '"')


async def test_users_their_roles_passwords_and_tokens(closed: Closed) -> None:
    async with signed_in(closed, "superuser") as superuser:
        await superuser.get("/users")
        login = f"new@{closed.customer_id}.example"
        wrong = await superuser.post("/users", login="", role="billing", name="N<i>x", password="x")
        assert wrong.status_code == 422 and "N&lt;i&gt;x" in wrong.text
        assert_escaped(wrong.text)
        short = await superuser.post("/users", login=login, role="user", password="secret<1>")
        assert short.status_code == 422 and "secret&lt;1&gt;" not in short.text
        assert "12 to 256 characters" in short.text
        made = await superuser.post("/users", login=login, role="user", name="N<i>x")
        path = made.headers["location"]
        page = await superuser.get(path)
        assert "this user cannot sign in here" in page.text
        twice = await superuser.post("/users", login=login, role="user")
        assert twice.status_code == 409 and "field wrong" not in twice.text

        wrong = await superuser.post(
            f"{path}/password", password="correct horse battery", repeated="other"
        )
        assert wrong.status_code == 422 and "is not the same" in wrong.text
        assert "correct horse" not in wrong.text
        secret = {"password": "correct horse battery", "repeated": "correct horse battery"}
        assert (await superuser.post(f"{path}/password", **secret)).status_code == 303
        changed = await superuser.post(path, role="billing", name="Other", etag="")
        assert changed.status_code == 303

        token = await superuser.post(f"{path}/tokens", name="CI <i>x", scope="global:read")
        assert token.status_code == 200 and "Copy it now" in token.text
        assert_escaped(token.text)
        text = re.search(r'id="access_token"[^>]*value="([^"]+)"', token.text)
        assert text is not None
        async with visitor(closed.system) as reader:
            await reader.sign_in(text[1])
            own = await reader.get("/account")
            assert "read only with this token" in own.text and "Make a token" not in own.text
            assert (await reader.post("/account/tokens", name="x")).status_code == 403
        page = await superuser.get(path)
        assert text[1] not in page.text
        [revoke] = set(re.findall(rf'action="({path}/tokens/[^"]+/revoke)"', page.text))
        assert (await superuser.post(revoke)).status_code == 303
        assert "No tokens" in (await superuser.get(path)).text

        await _signs_in_and_changes_its_password(closed, login)
        deleted = await superuser.post(f"{path}/delete")
        assert deleted.headers["location"] == "/users"
        assert (await superuser.get(path)).status_code == 404


async def _signs_in_and_changes_its_password(closed: Closed, login: str) -> None:
    async with visitor(closed.system) as user:
        await user.get("/sign-in")
        entered = await user.post("/sign-in", login=login, password="correct horse battery")
        assert entered.status_code == 303
        await user.get("/account")
        new = {"password": "another horse battery", "repeated": "another horse battery"}
        wrong = await user.post("/account/password", current_password="guess", **new)
        assert wrong.status_code == 403 and "allowed: the user&#39;s present password" in wrong.text
        done = await user.post("/account/password", current_password="correct horse battery", **new)
        assert done.headers["location"] == "/sign-in"
        assert (await user.get("/account")).headers["location"].startswith("/sign-in")


async def test_the_last_superuser_stays(closed: Closed) -> None:
    async with signed_in(closed, "operator") as operator:
        page = await operator.get(f"/customers/{closed.customer_id}/users")
        row = next(
            part for part in page.text.split("<tr>") if f"superuser@{closed.customer_id}" in part
        )
        path = re.findall(r'href="(/users/[^"]+)"', row)[0]
        await operator.get(path)
        for answer in (
            await operator.post(f"{path}/delete"),
            await operator.post(path, role="user", name=""),
        ):
            assert answer.status_code == 409 and "last superuser" in answer.text


async def test_price_books_are_read_and_uploaded(closed: Closed) -> None:
    async with signed_in(closed, "operator") as operator:
        assert "Example price book" in (await operator.get("/price-books")).text
        book = await operator.get("/price-books/example/versions/1")
        assert "100\u202f000" in book.text and "southamerica_std" in book.text
        form = await operator.get("/new-price-book?book=example&version=1")
        document = json.loads(_textarea(form.text))
        assert "version" not in document
        broken = await operator.post("/price-books", document='{"a": <i>x}')
        assert broken.status_code == 422 and "Line 1, column 7" in broken.text
        assert_escaped(broken.text)
        document["price_book_id"] = "second"
        document["effective_from"] = _next_month()
        document["prices"]["connection_minutes"]["*"]["unit_price"] = "<i>x"
        wrong = await operator.post("/price-books", document=json.dumps(document))
        assert wrong.status_code == 422
        assert "prices.connection_minutes.*.unit_price" in wrong.text
        assert_escaped(wrong.text)
        document["prices"]["connection_minutes"]["*"]["unit_price"] = "0.000125"
        made = await operator.post("/price-books", document=json.dumps(document))
        assert made.headers["location"] == "/price-books/second/versions/1"
        assert "$0.000125" in (await operator.get("/price-books/second/versions/1")).text
        document["effective_from"] = "2020-01"
        past = await operator.post("/price-books", document=json.dumps(document))
        assert past.status_code == 409 and "not begun" in past.text


def _textarea(text: str) -> str:
    inner = text.split("<textarea")[1].split(">", 1)[1].split("</textarea>")[0]
    return inner.replace("&#34;", '"').replace("&amp;", "&")


async def test_pages_are_small(closed: Closed) -> None:
    invoice = f"/invoices/{closed.invoice['invoice_id']}"
    async with signed_in(closed, "operator") as operator:
        await operator.post("/customer-shown", customer_id=closed.customer_id)
        for path in ("/invoices", invoice, f"{invoice}/lines/2", "/operations", "/customers"):
            async with operator.http.stream("GET", path) as answer:
                assert answer.status_code == 200
                sent = b"".join([part async for part in answer.aiter_raw()])
            assert len(sent) < 100 * 1024, path
