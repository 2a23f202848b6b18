"""What pages say of settings, counts and ranges."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from support.console import visitor
from support.embedded import Embedded, Tenant

pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("console-wording")]


async def test_settings_are_said_in_words_before_and_after(
    system: Embedded, tenant: Tenant
) -> None:
    path = f"/services/{tenant.service_id}"
    async with system.api(tenant.tokens["engineer"]) as api:
        draft = f"/service/{tenant.service_id}/version/2"
        await api.call("PUT", f"/service/{tenant.service_id}/version/1/clone")
        more = {"name": "second", "address": "second.example.com", "port": 4443, "use_ssl": True}
        await api.call("POST", f"{draft}/backend", more)
        await api.call("PUT", f"/enabled-products/v1/websockets/services/{tenant.service_id}")
        await api.call("DELETE", f"/enabled-products/v1/websockets/services/{tenant.service_id}")
    async with visitor(system) as someone:
        await someone.sign_in(tenant.tokens["user"])
        for page in (f"{path}/history", f"{path}/websockets"):
            told = (await someone.get(page)).text
            assert "<dt>enabled</dt>" in told
            assert not re.search(r">(True|False|None)<", told), page
            assert '<span class="added">yes</span>' in told
        beside = (await someone.get(f"{path}/versions/2")).text.partition("Beside the active")[2]
        rows = beside.partition("</tbody>")[0]
        assert re.search(r"backend second <span[^>]*>added<", rows)
        assert '<span class="added">second.example.com</span>' in rows
        assert '<span class="added">4443</span>' in rows and "removed" not in rows


async def test_a_count_that_is_none_is_refused(system: Embedded, tenant: Tenant) -> None:
    path = f"/services/{tenant.service_id}/websockets"
    async with visitor(system) as someone:
        await someone.sign_in(tenant.tokens["superuser"])
        for page in (path, f"{path}/cost"):
            assert (await someone.get(f"{page}?connections=1000")).status_code == 200
            answer = await someone.get(f"{page}?connections=1,000")
            assert answer.status_code == 400 and "in digits alone" in answer.text


async def test_more_than_a_year_of_months_has_connections_at_once(
    system: Embedded, tenant: Tenant
) -> None:
    async with visitor(system) as someone:
        await someone.sign_in(tenant.tokens["user"])
        page = (await someone.get("/usage?by=month&from=2024-01-01")).text
        _, _, open_ = page.partition("Connections open at once</h2>")
        assert "the numbers" in open_.partition("</section>")[0]
        assert "range" not in open_.partition("</section>")[0].lower()


async def test_only_the_last_30_days_are_said_to_be_them(system: Embedded, tenant: Tenant) -> None:
    current = 'href="/usage?by=day" aria-current="true"'
    since = datetime.now(UTC) - timedelta(days=9)
    async with visitor(system) as someone:
        await someone.sign_in(tenant.tokens["user"])
        assert current in (await someone.get("/usage")).text
        assert current not in (await someone.get(f"/usage?by=day&from={since:%Y-%m-%d}")).text
