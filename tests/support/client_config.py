"""What an operator and a customer's people do at config with `handoff_client`, every operation of
it: accounts, a service with all its parts, products, and taking all of it away again."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest

from handoff_client import (
    Conflict,
    Invalid,
    NotFound,
    Unauthorized,
    backends,
    customers,
    directors,
    domains,
    history,
    limits,
    products,
    services,
    sessions,
    tokens,
    users,
    versions,
    websocket_rules,
)
from support.client_driver import Driver

DOMAIN = "client.example.com"


class People(NamedTuple):
    """A customer, and its people's clients."""

    customer_id: str
    superuser: Driver
    engineer: Driver
    billing: Driver


async def accounts(operator: Driver) -> People:
    made = await operator.run(customers.create("Example", "paid", billing_email="b@example.com"))
    assert made in await operator.items(customers.listing(limit=1))
    read = await operator.run(customers.get(made.id).with_headers())
    changed = await operator.run(customers.change(made.id, name="Other", if_match=read.etag))
    assert (changed.name, changed.billing_email) == ("Other", "b@example.com")
    with pytest.raises(Conflict) as caught:
        await operator.run(customers.change(made.id, name="Third", if_match=read.etag))
    assert caught.value.code == "precondition_failed" and caught.value.request_id

    begun = datetime.now(UTC).replace(microsecond=0) - timedelta(days=100)
    contract = await operator.run(customers.create_contract(made.id, begun))
    assert contract.starts_at == begun and contract.ends_at is None
    ends = begun + timedelta(days=1000)
    await operator.run(customers.change_contract(made.id, contract.id, ends_at=ends))
    contract = await operator.run(customers.contract(made.id, contract.id))
    assert contract.ends_at == ends
    assert await operator.items(customers.contracts(made.id)) == [contract]

    clients = {}
    roles: tuple[users.Role, ...] = ("superuser", "engineer", "billing")
    for role in roles:
        user = await operator.run(users.create(made.id, f"{role}@{made.id}.example", role))
        token = await operator.run(tokens.create_for(user.id, name="test"))
        assert token.access_token is not None
        clients[role] = operator.bearing(token.access_token)
    people = People(made.id, **clients)
    assert (await people.engineer.run(customers.current())).id == made.id
    assert (await people.engineer.run(customers.basic(made.id))).name == "Other"
    await users_and_tokens(people)
    return people


async def users_and_tokens(people: People) -> None:
    engineer, superuser = people.engineer, people.superuser
    me = await engineer.run(users.current())
    assert me.role == "engineer" and await engineer.run(users.get(me.id)) == me
    other = await superuser.run(
        users.create(people.customer_id, f"x@{people.customer_id}.example", "user", name="X")
    )
    renamed = await superuser.run(users.change(other.id, name="Y"))
    assert (renamed.name, renamed.role) == ("Y", "user")
    assert renamed in await superuser.items(users.listing(people.customer_id, limit=1))
    await superuser.run(users.delete(other.id))

    own = await engineer.run(tokens.get_self())
    assert own.user_id == me.id and own.expires_at is None
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    more = await engineer.run(tokens.create(name="more", scope="global:read", expires_at=soon))
    assert (await engineer.run(tokens.get(more.id))).expires_at == soon
    listed = {one.id for one in await engineer.items(tokens.listing())}
    assert listed == {own.id, more.id}
    assert {one.id for one in await engineer.items(tokens.of_user(me.id))} == listed
    every = await superuser.items(tokens.of_customer(people.customer_id, per_page=1))
    assert listed < {one.id for one in every}
    await engineer.run(tokens.revoke(more.id))
    last = await engineer.run(tokens.create(name="session"))
    signed_in = engineer.bearing(last.access_token or "")
    await signed_in.run(sessions.end())
    with pytest.raises(Unauthorized):
        await signed_in.run(users.current())


async def configuration(people: People, port: int) -> str:
    engineer = people.engineer
    service = await engineer.run(services.create("chat"))
    await engineer.run(services.create("other"))
    listed = await engineer.items(services.listing(per_page=1, direction="descend"))
    assert [one.name for one in listed] == ["other", "chat"] and listed[1].version == 1
    named = services.listing(per_page=1, customer_id=people.customer_id)
    assert [one.name for one in await engineer.items(named)] == ["chat", "other"]
    assert await engineer.run(services.search("chat")) == service
    await engineer.run(services.update(service.id, comment="for people"))
    assert (await engineer.run(services.get(service.id))).comment == "for people"

    await engineer.run(versions.create(service.id, comment="two"))
    draft = await engineer.run(versions.update(service.id, 2, comment="zwei"))
    assert await engineer.run(versions.get(service.id, 2)) == draft
    assert not (await engineer.run(versions.lock(service.id, 2))).active
    await parts(people, service.id, port)
    found = await engineer.run(versions.validate(service.id, 1))
    assert found.status == "ok", found.msg
    clone = await engineer.run(versions.clone(service.id, 1))
    assert [one.number for one in await engineer.items(versions.listing(service.id))] == [1, 2, 3]
    await engineer.run(versions.activate(service.id, clone.number))
    await engineer.run(versions.deactivate(service.id, clone.number))
    await engineer.run(versions.activate(service.id, clone.number))
    [domain] = await engineer.items(domains.active(service.id))
    assert (domain.name, domain.version) == (DOMAIN, 3)
    details = await engineer.run(services.details(service.id, version=1))
    assert details.active_version is not None and details.active_version.number == 3
    assert [one.name for one in details.version.backends] == ["origin"]
    await product(people, service.id)
    return service.id


async def parts(people: People, service_id: str, port: int) -> None:
    engineer = people.engineer
    await engineer.run(domains.create(service_id, 1, "wrong.example.com"))
    await engineer.run(domains.update(service_id, 1, "wrong.example.com", new_name=DOMAIN))
    await engineer.run(domains.create(service_id, 1, "*.example.com"))
    await engineer.run(domains.delete(service_id, 1, "*.example.com"))
    assert await engineer.items(domains.listing(service_id, 1)) == [
        await engineer.run(domains.get(service_id, 1, DOMAIN))
    ]

    await engineer.run(backends.create(service_id, 1, "a b?", address="example.com"))
    await engineer.run(backends.update(service_id, 1, "a b?", name="other"))
    await engineer.run(backends.delete(service_id, 1, "other"))
    made = await engineer.run(
        backends.create(service_id, 1, "origin", address="127.0.0.1", port=1, use_ssl=False)
    )
    assert made.ipv4 == "127.0.0.1" and made.max_conn == 200
    await engineer.run(backends.update(service_id, 1, "origin", port=port, use_ssl=None))
    [backend] = await engineer.items(backends.listing(service_id, 1))
    assert backend == await engineer.run(backends.get(service_id, 1, "origin"))
    assert backend.port == port

    await engineer.run(directors.create(service_id, 1, "d", quorum=50))
    await engineer.run(directors.update(service_id, 1, "d", retries=2))
    await engineer.run(directors.link(service_id, 1, "d", "origin"))
    assert (await engineer.run(directors.linked(service_id, 1, "d", "origin"))).director == "d"
    director = await engineer.run(directors.get(service_id, 1, "d"))
    assert (director.quorum, director.retries, director.backends) == (50, 2, (backend,))
    assert await engineer.items(directors.listing(service_id, 1)) == [director]
    found = await engineer.run(products.check(service_id, version=1))
    assert [one.object for one in found.violations] == ["director"] and not found.compatible
    await engineer.run(directors.unlink(service_id, 1, "d", "origin"))
    await engineer.run(directors.delete(service_id, 1, "d"))

    await engineer.run(websocket_rules.create(service_id, 1, "r", backend="origin", priority=5))
    await engineer.run(websocket_rules.update(service_id, 1, "r", path_prefix="/"))
    rule = await engineer.run(websocket_rules.get(service_id, 1, "r"))
    assert (rule.priority, rule.path_prefix, rule.host) == (5, "/", None)
    assert await engineer.items(websocket_rules.listing(service_id, 1)) == [rule]
    await engineer.run(websocket_rules.delete(service_id, 1, "r"))


async def product(people: People, service_id: str) -> None:
    engineer = people.engineer
    names: tuple[products.Product, ...] = ("ngwaf", "websockets")
    for name in names:
        with pytest.raises(Invalid) as caught:
            await engineer.run(products.get(service_id, name))
        assert caught.value.code == "no_product_on_service"
        assert (await engineer.run(products.enable(service_id, name))).service.id == service_id
        assert (await engineer.run(products.get(service_id, name))).product.id == name
        on = await engineer.run(products.enabled_services(name))
        assert on.services == (service_id,) and on.customer is not None
        await engineer.run(products.disable(service_id, name, keep_open=True))
    await engineer.run(products.enable(service_id))
    check = await engineer.run(products.check(service_id))
    assert check.entitled and check.enabled and check.may_toggle and check.compatible

    read = await engineer.run(limits.get(service_id).with_headers())
    assert read.value.max_connections is None
    put = await engineer.run(limits.put(service_id, max_connections=9, if_match=read.etag))
    assert (put.max_connections, put.idle_timeout_ms) == (9, 600_000)
    entries = await engineer.items(history.of_service(service_id, limit=5))
    assert entries[0].object == "limits" and (entries[0].after or {})["max_connections"] == 9
    assert {one.service_id for one in entries} == {service_id}
    switched = await engineer.items(history.of_service(service_id, object="product"))
    assert {one.object for one in switched} == {"product"} and len(switched) == 5
    every = await people.superuser.page(history.every(limit=3))
    assert len(every.items) == 3 and every.next is not None


async def gone(operator: Driver, people: People, service_id: str) -> None:
    engineer = people.engineer
    await engineer.run(products.disable(service_id))
    await engineer.run(versions.deactivate(service_id, 3))
    for one in await engineer.items(services.listing()):
        await engineer.run(services.delete(one.id))
    with pytest.raises(NotFound) as caught:
        await engineer.run(services.get(service_id))
    assert caught.value.code == "Record not found" and caught.value.request_id
    await operator.run(customers.delete(people.customer_id))
