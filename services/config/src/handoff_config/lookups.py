"""The look-up tables: what is unique across streams, and how an id is found without its stream.

Written in the transaction that writes the stream, from the state before and after. Part of the
store.
"""

from collections.abc import Mapping

from sqlalchemy import delete, insert, or_, select, update

from handoff_common.database import Tx, lock_name
from handoff_common.errors import ApiError, conflict
from handoff_config import credentials, errors, tables
from handoff_config.contracts import Customer, Operators, Token
from handoff_config.services import Service
from handoff_config.streams import CUSTOMER, OPERATORS_STREAM

_State = Service | Customer | Operators


async def write(tx: Tx, before: _State | None, after: _State) -> None:
    """Raises 409 `duplicate` for a name or login that is taken, 409 `domain_taken`."""
    if isinstance(after, Service):
        await _service(tx, before if isinstance(before, Service) else None, after)
    elif isinstance(after, Customer):
        await _customer(tx, before if isinstance(before, Customer) else None, after)
    else:
        known = before.tokens if isinstance(before, Operators) else {}
        await _tokens(tx, OPERATORS_STREAM, known, after.tokens)


# --- Services ----------------------------------------------------------------------------------


async def _service(tx: Tx, before: Service | None, after: Service) -> None:
    table = tables.services
    if after.deleted_ms is not None:
        await tx.execute(delete(table).where(table.c.service_id == after.service_id))
    else:
        values = {
            "name": after.name,
            "websockets": after.enabled("websockets"),
            "ngwaf": after.enabled("ngwaf"),
        }
        if before is None or before.name != after.name:
            await _refuse_taken_name(tx, after)
        if before is None:
            await tx.execute(
                insert(table).values(
                    service_id=after.service_id,
                    customer_id=after.customer_id,
                    created_ms=after.created_ms,
                    **values,
                )
            )
        else:
            await tx.execute(
                update(table).where(table.c.service_id == after.service_id).values(values)
            )
    if (before.active_version if before else None) != after.active_version:
        await _active_domains(tx, after)


async def _refuse_taken_name(tx: Tx, service: Service) -> None:
    table = tables.services
    taken = await tx.scalar(
        select(table.c.service_id).where(
            table.c.customer_id == service.customer_id,
            table.c.name == service.name,
            table.c.service_id != service.service_id,
        )
    )
    if taken is not None:
        raise errors.duplicate("service", service.name)


async def _active_domains(tx: Tx, service: Service) -> None:
    table = tables.active_domains
    await tx.execute(delete(table).where(table.c.service_id == service.service_id))
    if service.active_version is None:
        return
    # A wildcard and what it covers are different rows: only one at a time may look and then write.
    await lock_name(tx, "active domains")
    reasons = await taken(tx, service, service.active_version)
    if reasons:
        raise _domain_taken(reasons)
    await tx.execute(
        insert(table),
        [
            {
                "domain": domain,
                "parent": _wildcard(domain),
                "service_id": service.service_id,
                "customer_id": service.customer_id,
            }
            for domain in service.versions[service.active_version].domains
        ],
    )


def _domain_taken(reasons: list[str]) -> ApiError:
    return conflict("domain_taken", "; ".join(reasons))


async def taken(tx: Tx, service: Service, number: int) -> list[str]:
    """A sentence for each domain of the version that an active version of another service has.

    Between customers a wildcard and what it covers exclude each other too, so that nobody takes
    over a part of another's domain. Whose it is stays unsaid then.
    """
    table = tables.active_domains
    domains = sorted(service.versions[number].domains)
    parents = {_wildcard(domain) for domain in domains}
    rows = await tx.execute(
        select(table.c.domain, table.c.service_id, table.c.customer_id)
        .where(
            table.c.service_id != service.service_id,
            or_(
                table.c.domain.in_([*domains, *parents]),
                table.c.parent.in_([d for d in domains if d.startswith("*.")]),
            ),
        )
        .order_by(table.c.domain)
    )
    reasons = set()
    for row in rows:
        same_customer = row.customer_id == service.customer_id
        if row.domain in domains:
            whose = f"service {row.service_id}" if same_customer else "another customer"
            reasons.add(f"domain {row.domain!r} is taken by {whose}")
        elif not same_customer:
            mine = [d for d in domains if row.domain == _wildcard(d) or d == _wildcard(row.domain)]
            reasons.update(f"domain {d!r} overlaps one of another customer" for d in mine)
    return sorted(reasons)


def _wildcard(domain: str) -> str:
    """The wildcard that covers a domain; for a wildcard, itself."""
    _, _, rest = domain.partition(".")
    return f"*.{rest}"


# --- Customers, users, tokens ------------------------------------------------------------------


async def _customer(tx: Tx, before: Customer | None, after: Customer) -> None:
    table = tables.customers
    if after.deleted_ms is not None:
        await tx.execute(delete(table).where(table.c.customer_id == after.customer_id))
    elif before is None:
        await tx.execute(
            insert(table).values(customer_id=after.customer_id, created_ms=after.created_ms)
        )
    await _users(tx, before, after)
    stream = f"{CUSTOMER.prefix}{after.customer_id}"
    await _tokens(tx, stream, before.tokens if before else {}, after.tokens)


async def _users(tx: Tx, before: Customer | None, after: Customer) -> None:
    table = tables.users
    known = {} if before is None else before.users
    gone = [user_id for user_id in known if user_id not in after.users]
    if gone:
        await tx.execute(delete(table).where(table.c.user_id.in_(gone)))
        await credentials.forget(tx, gone)
    for user in after.users.values():
        was = known.get(user.user_id)
        if was is not None and was.login == user.login:
            continue
        login = user.login.lower()
        taken_by = await tx.scalar(select(table.c.user_id).where(table.c.login == login))
        if taken_by not in (None, user.user_id):
            raise errors.duplicate("user", user.login)
        if was is None:
            await tx.execute(
                insert(table).values(
                    user_id=user.user_id, customer_id=after.customer_id, login=login
                )
            )
        else:
            await tx.execute(
                update(table).where(table.c.user_id == user.user_id).values(login=login)
            )


async def _tokens(
    tx: Tx, stream: str, before: Mapping[str, Token], after: Mapping[str, Token]
) -> None:
    table = tables.tokens
    gone = [token_id for token_id in before if token_id not in after]
    if gone:
        await tx.execute(delete(table).where(table.c.token_id.in_(gone)))
    made = [token_id for token_id in after if token_id not in before]
    if made:
        await tx.execute(insert(table), [{"token_id": t, "stream": stream} for t in made])
