"""Two people change the same thing: the second is told, and nothing that was typed is lost."""

import html
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from support.console import Visitor, visitor
from support.embedded import Embedded, Tenant

pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("console-together")]


@pytest.fixture
async def two(system: Embedded, tenant: Tenant) -> AsyncIterator[tuple[Visitor, Visitor]]:
    async with AsyncExitStack() as stack:
        people = [await stack.enter_async_context(visitor(system)) for _ in range(2)]
        for someone, role in zip(people, ("engineer", "superuser"), strict=True):
            await someone.sign_in(tenant.tokens[role])
        yield people[0], people[1]


async def form(someone: Visitor, path: str) -> dict[str, str]:
    """What a browser would send of the page's form without anything being typed."""
    page = (await someone.get(path)).text
    return fields(page)


def fields(page: str) -> dict[str, str]:
    main = page.partition("<main")[2]
    found = re.findall(r'<input[^>]* name="([^"]+)"[^>]* value="([^"]*)"', main)
    return {name: html.unescape(value) for name, value in found if name != "csrf"}


async def test_the_second_to_set_limits_is_told(
    two: tuple[Visitor, Visitor], tenant: Tenant
) -> None:
    first, second = two
    path = f"/services/{tenant.service_id}/limits"
    theirs, ours = await form(first, path), await form(second, path)
    answer = await first.post(path, **theirs | {"max_connections": "11"})
    assert answer.status_code == 303
    answer = await second.post(path, **ours | {"max_new_per_second": "22"})
    assert answer.status_code == 412 and "Somebody else has changed this" in answer.text
    again = fields(answer.text)
    assert (again["max_connections"], again["max_new_per_second"]) == ("", "22"), "as typed"
    assert (await second.post(path, **again)).status_code == 303
    assert (await form(first, path))["max_new_per_second"] == "22"


@pytest.mark.parametrize(
    ("kind", "name", "field"),
    [("backends", "origin", "override_host"), ("domains", "{domain}", "comment")],
)
async def test_the_second_to_change_a_part_is_told(
    two: tuple[Visitor, Visitor], tenant: Tenant, kind: str, name: str, field: str
) -> None:
    first, second = two
    versions = f"/services/{tenant.service_id}/versions"
    draft = (await first.post(f"{versions}/1/clone")).headers["location"]
    path = f"{draft}/{kind}/{name.format(domain=tenant.domain)}"
    theirs, ours = await form(first, path), await form(second, path)
    assert (await first.post(path, **theirs | {field: "a.example.com"})).status_code == 303
    answer = await second.post(path, **ours | {"comment": "of the second"})
    assert answer.status_code == 412 and "Somebody else has changed this" in answer.text
    assert (await form(first, path))[field] == "a.example.com", "it stands"
    assert (await second.post(path, **fields(answer.text))).status_code == 303
    assert (await form(first, path))["comment"] == "of the second"
