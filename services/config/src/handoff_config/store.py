"""Where events and states are kept: appends a command's events, their fold, the look-ups and what
the log must be told, all in one transaction.

Optimistic: a command decides on the state it read; where another writer was faster, it decides
again on the new state, a few times, and then gives up with 409 `concurrent_change`.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from handoff_common.clock import Clock
from handoff_common.database import Database, Tx, lock_name
from handoff_common.outbox import enqueue
from handoff_config import errors, history, lookups, tables
from handoff_config.contracts import Customer, Operators
from handoff_config.fields import is_storable
from handoff_config.services import Service
from handoff_config.streams import CUSTOMER, OPERATORS, SERVICE, Kind, encode, kind_of

_ATTEMPTS = 4
KEEP_ANSWERS_MS = 86_400_000

S = TypeVar("S", Service, Customer, Operators)
E = TypeVar("E")


class Actor(NamedTuple):
    """Who changes something, and from where."""

    token_id: str | None
    user_id: str | None
    login: str
    ip: str = ""
    request_id: str = ""


class Answer(NamedTuple):
    """What a request is answered. `body` is JSON; `kept` is what a repeat of the request gets where
    that must be less: a token is shown once. `headers` are not kept."""

    body: Any
    status: int = 200
    kept: Any = None
    headers: Mapping[str, str] = {}


class Once(NamedTuple):
    """A request that bears an Idempotency-Key: hex SHA-256 of the key and of the request."""

    token_id: str
    key_sha256: str
    request_sha256: str


@dataclass(frozen=True, slots=True)
class Done(Generic[S]):
    """answer: what the new state was answered with, or what was answered the first time
    (`repeated`). told: whether the log is to be told something. after: the new state; None where
    `repeated`."""

    answer: Answer
    told: bool = False
    repeated: bool = False
    after: S | None = None


Beside = Callable[[Tx], Awaitable[None]]
"""What is written in a change's transaction and is in no event: after them, so that the stream is
locked. It may refuse the change."""


class _Repeated(Exception):
    """The request was answered before."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


def _nothing(_: Any) -> Answer:
    return Answer(None)


class Store:
    """The config database."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self.db = db
        self._clock = clock

    # --- Writing ---

    async def change(
        self,
        kind: Kind[S, E],
        identifier: str,
        decide: Callable[[S | None], Sequence[E]],
        *,
        actor: Actor,
        answer: Callable[[S], Answer] = _nothing,
        once: Once | None = None,
        beside: Beside | None = None,
    ) -> Done[S]:
        """Run one command on one stream.

        decide: the state (None: no such stream yet) → the events, or an ApiError; called again
        where another writer was faster. answer: the new state → what the request is answered,
        kept in the same transaction where `once` is given.
        Raises what `decide` and `beside` raise, 409 `concurrent_change`, 409 for a taken name,
        login or domain, 422 `idempotency_key_reused`.
        """
        stream = f"{kind.prefix}{identifier}"
        for _ in range(_ATTEMPTS):
            try:
                async with self.db.transaction() as tx:
                    return await self._attempt(
                        tx, kind, stream, decide, actor, answer, once, beside
                    )
            except IntegrityError:
                # Another writer took the stream's next version, a name or the key first.
                continue
            except _Repeated as repeated:
                return Done(repeated.answer, repeated=True)
        raise errors.concurrent_change(stream)

    async def _attempt(
        self,
        tx: Tx,
        kind: Kind[S, E],
        stream: str,
        decide: Callable[[S | None], Sequence[E]],
        actor: Actor,
        answer: Callable[[S], Answer],
        once: Once | None,
        beside: Beside | None,
    ) -> Done[S]:
        if once is not None:
            await self._refuse_repeat(tx, once)
        row = (
            await tx.execute(
                select(tables.streams.c.version, tables.streams.c.state)
                .where(tables.streams.c.stream == stream)
                .with_for_update()
            )
        ).one_or_none()
        before = None if row is None else kind.states.decode(row.state)
        version = 0 if row is None else row.version
        now = self._clock.now_ms()
        decided = decide(before)
        state, revision = before, 0
        for number, event in enumerate(decided, start=version + 1):
            was, state = state, kind.fold(state, event, now)
            revision = await self._append(tx, stream, number, event, was, state, actor, now)
        if state is None:
            raise ValueError(f"{stream}: a command on nothing gave no event")
        told = False
        if decided:
            await self._keep(tx, stream, version, version + len(decided), state)
            await lookups.write(tx, before, state)
            messages = kind.messages(before, state, revision, now)
            await enqueue(tx, tables.outbox, messages)
            told = bool(messages)
        if beside is not None:
            await beside(tx)
        answered = answer(state)
        if once is not None:
            await self._keep_answer(tx, once, answered, now)
        return Done(answered, told, after=state)

    async def _append(
        self,
        tx: Tx,
        stream: str,
        number: int,
        event: Any,
        before: Any,
        after: Any,
        actor: Actor,
        now: int,
    ) -> int:
        row = {
            "stream": stream,
            "stream_version": number,
            "type": history.tag(event),
            "data": encode(event),
            "change": encode(history.change(before, event, after)),
            "customer_id": None if isinstance(after, Operators) else after.customer_id,
            "actor_token_id": actor.token_id,
            "actor_user_id": actor.user_id,
            "actor_login": actor.login,
            "at_ms": now,
            "ip": actor.ip[:64],
            "request_id": actor.request_id[:128],
        }
        result = await tx.execute(
            insert(tables.events).values(row).returning(tables.events.c.revision)
        )
        return int(result.scalar_one())

    @staticmethod
    async def _keep(tx: Tx, stream: str, expected: int, version: int, state: Any) -> None:
        table = tables.streams
        values = {"version": version, "state": encode(state)}
        if expected == 0:
            await tx.execute(insert(table).values(stream=stream, **values))
            return
        # The unique (stream, stream_version) has already shown that nobody was faster.
        await tx.execute(update(table).where(table.c.stream == stream).values(values))

    async def _refuse_repeat(self, tx: Tx, once: Once) -> None:
        table = tables.answers
        # Its twin waits here, so that it finds the answer rather than what the answer changed.
        await lock_name(tx, f"answer {once.token_id} {once.key_sha256}")
        oldest = self._clock.now_ms() - KEEP_ANSWERS_MS
        await tx.execute(delete(table).where(table.c.created_ms < oldest))
        row = (
            await tx.execute(
                select(table).where(
                    table.c.token_id == once.token_id, table.c.key_sha256 == once.key_sha256
                )
            )
        ).one_or_none()
        if row is None:
            return
        if row.request_sha256 != once.request_sha256:
            raise errors.key_reused()
        raise _Repeated(Answer(json.loads(row.body), row.status))

    @staticmethod
    async def _keep_answer(tx: Tx, once: Once, answer: Answer, now: int) -> None:
        kept = answer.body if answer.kept is None else answer.kept
        await tx.execute(
            insert(tables.answers).values(
                **once._asdict(), status=answer.status, body=json.dumps(kept), created_ms=now
            )
        )

    # --- Reading ---

    async def service(self, service_id: str) -> Service | None:
        return await self._state(SERVICE, service_id)

    async def customer(self, customer_id: str) -> Customer | None:
        return await self._state(CUSTOMER, customer_id)

    async def operators(self) -> Operators | None:
        return await self._state(OPERATORS, "")

    async def _state(self, kind: Kind[S, E], identifier: str) -> S | None:
        stream = f"{kind.prefix}{identifier}"
        if not is_storable(stream):
            return None
        async with self.db.read() as tx:
            found = await tx.scalar(
                select(tables.streams.c.state).where(tables.streams.c.stream == stream)
            )
        return None if found is None else kind.states.decode(found)

    async def services(
        self, customer_id: str | None, *, offset: int, limit: int, newest_first: bool = False
    ) -> tuple[list[Service], int]:
        """A page of the services of a customer (None: of all), oldest first, and how many there
        are."""
        table, streams = tables.services, tables.streams
        mine = [] if customer_id is None else [table.c.customer_id == customer_id]
        order = [table.c.created_ms, table.c.service_id]
        async with self.db.read() as tx:
            total = await tx.scalar(select(func.count()).select_from(table).where(*mine))
            rows = await tx.execute(
                select(streams.c.state)
                .join(table, streams.c.stream == SERVICE.prefix + table.c.service_id)
                .where(*mine)
                .order_by(*([c.desc() for c in order] if newest_first else order))
                .offset(offset)
                .limit(limit)
            )
            return [SERVICE.states.decode(row.state) for row in rows], int(total or 0)

    async def service_named(self, customer_id: str | None, name: str) -> Service | None:
        """By exact name; for an operator (None) the oldest of that name."""
        table = tables.services
        if not is_storable(name):
            return None
        mine = [] if customer_id is None else [table.c.customer_id == customer_id]
        async with self.db.read() as tx:
            found = await tx.scalar(
                select(table.c.service_id)
                .where(table.c.name == name, *mine)
                .order_by(table.c.created_ms, table.c.service_id)
                .limit(1)
            )
        return None if found is None else await self.service(found)

    async def count_services(self, customer_id: str) -> int:
        table = tables.services
        async with self.db.read() as tx:
            return int(
                await tx.scalar(
                    select(func.count())
                    .select_from(table)
                    .where(table.c.customer_id == customer_id)
                )
                or 0
            )

    async def services_with(self, product: str, customer_id: str | None) -> list[str]:
        """Ids of the services that have the product enabled."""
        table = tables.services
        mine = [] if customer_id is None else [table.c.customer_id == customer_id]
        async with self.db.read() as tx:
            rows = await tx.scalars(
                select(table.c.service_id)
                .where(table.c[product].is_(True), *mine)
                .order_by(table.c.created_ms, table.c.service_id)
            )
            return list(rows)

    async def taken_domains(self, service: Service, number: int) -> list[str]:
        """Why the version's domains cannot be activated beside other services' active ones."""
        async with self.db.read() as tx:
            return await lookups.taken(tx, service, number)

    async def customers(self, after: tuple[int, str] | None, limit: int) -> list[Customer]:
        """Customers in the order they were made, from behind `after` (created_ms, id)."""
        table, streams = tables.customers, tables.streams
        query = (
            select(streams.c.state)
            .join(table, streams.c.stream == CUSTOMER.prefix + table.c.customer_id)
            .order_by(table.c.created_ms, table.c.customer_id)
            .limit(limit)
        )
        if after is not None:
            ms, identifier = after
            query = query.where(
                (table.c.created_ms > ms)
                | ((table.c.created_ms == ms) & (table.c.customer_id > identifier))
            )
        async with self.db.read() as tx:
            return [CUSTOMER.states.decode(row.state) for row in await tx.execute(query)]

    async def customer_of_user(self, user_id: str) -> str | None:
        if not is_storable(user_id):
            return None
        async with self.db.read() as tx:
            return await tx.scalar(
                select(tables.users.c.customer_id).where(tables.users.c.user_id == user_id)
            )

    async def stream_of_token(self, token_id: str) -> str | None:
        """`customer/<id>` or `operators`."""
        if not is_storable(token_id):
            return None
        async with self.db.read() as tx:
            return await tx.scalar(
                select(tables.tokens.c.stream).where(tables.tokens.c.token_id == token_id)
            )

    async def history(
        self,
        *,
        customer_id: str | None = None,
        service_id: str | None = None,
        kind: str | None = None,
        services_only: bool = False,
        before: int | None = None,
        limit: int,
    ) -> list[Any]:
        """Rows of `events`, newest first, from before the revision `before`. kind: of object.
        services_only: without customers, users and tokens."""
        table = tables.events
        query = select(table).order_by(table.c.revision.desc()).limit(limit)
        if customer_id is not None:
            query = query.where(table.c.customer_id == customer_id)
        if service_id is not None:
            query = query.where(table.c.stream == f"{SERVICE.prefix}{service_id}")
        if kind is not None:
            query = query.where(table.c.type.startswith(f"{kind}.", autoescape=True))
        if services_only:
            query = query.where(table.c.stream.startswith(SERVICE.prefix))
        if before is not None:
            query = query.where(table.c.revision < before)
        async with self.db.read() as tx:
            return list((await tx.execute(query)).all())

    # --- Proof ---

    async def differences(self) -> list[str]:
        """Streams whose kept state is not the fold of their events; none in a sound database."""
        table = tables.events
        wrong = []
        async with self.db.read() as tx:
            kept = (await tx.execute(select(tables.streams))).all()
            for row in kept:
                kind = kind_of(row.stream)
                stored = await tx.execute(
                    select(table.c.data, table.c.at_ms)
                    .where(table.c.stream == row.stream)
                    .order_by(table.c.stream_version)
                )
                folded = kind.folded((kind.events.decode(r.data), r.at_ms) for r in stored)
                if folded != kind.states.decode(row.state):
                    wrong.append(row.stream)
        return wrong


def change_of(row: Any) -> history.Change:
    """The change of a row of `events`."""
    return msgspec.json.decode(row.change, type=history.Change)
