"""The tables of the config service. Instants are epoch milliseconds (`*_ms`).

`events` is the truth; nothing in it is ever updated or deleted. `streams` and the look-ups
(`customers`, `users`, `tokens`, `services`, `active_domains`) can be made again from it.
`passwords` cannot: docs/adr/0016-password-hashes.md says why.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from handoff_common.database import NAMING
from handoff_common.outbox import outbox_table

metadata = MetaData(naming_convention=NAMING)

outbox = outbox_table(metadata)

events = Table(
    "events",
    metadata,
    # Global and ascending: what snapshots bear as their revision.
    Column(
        "revision",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    ),
    Column("stream", String(64), nullable=False),
    Column("stream_version", Integer, nullable=False),
    Column("type", String(64), nullable=False),
    Column("data", Text, nullable=False),
    # What it changed, for people: history.Change.
    Column("change", Text, nullable=False),
    Column("customer_id", String(64)),
    Column("actor_token_id", String(64)),
    Column("actor_user_id", String(64)),
    Column("actor_login", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("ip", String(64), nullable=False),
    Column("request_id", String(128), nullable=False),
    # Two writers that saw the same state cannot both go on from it.
    UniqueConstraint("stream", "stream_version"),
    Index(None, "customer_id", "revision"),
    sqlite_autoincrement=True,
)

streams = Table(
    "streams",
    metadata,
    Column("stream", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("state", Text, nullable=False),
)

customers = Table(
    "customers",
    metadata,
    Column("customer_id", String(64), primary_key=True),
    Column("created_ms", BigInteger, nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("user_id", String(64), primary_key=True),
    Column("customer_id", String(64), nullable=False),
    # In lower case; one login is one user of the whole deployment.
    Column("login", Text, nullable=False, unique=True),
)

tokens = Table(
    "tokens",
    metadata,
    Column("token_id", String(64), primary_key=True),
    Column("stream", String(64), nullable=False),
    Index(None, "stream"),
)

services = Table(
    "services",
    metadata,
    Column("service_id", String(64), primary_key=True),
    Column("customer_id", String(64), nullable=False),
    Column("name", Text, nullable=False),
    Column("websockets", Boolean, nullable=False),
    Column("ngwaf", Boolean, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    UniqueConstraint("customer_id", "name"),
)

active_domains = Table(
    "active_domains",
    metadata,
    # In lower case; unique in the whole deployment.
    Column("domain", String(255), primary_key=True),
    # What a wildcard beside it would be: `*.` in place of the first label.
    Column("parent", String(255), nullable=False),
    Column("service_id", String(64), nullable=False),
    Column("customer_id", String(64), nullable=False),
    Index(None, "service_id"),
    Index(None, "parent"),
)

passwords = Table(
    "passwords",
    metadata,
    Column("user_id", String(64), primary_key=True),
    # argon2id with its parameters and salt, in the PHC string format.
    Column("hash", Text, nullable=False),
)

sign_in_failures = Table(
    "sign_in_failures",
    metadata,
    Column(
        "id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    ),
    # Of what was given as a login, which may be a password in the wrong field.
    Column("login_sha256", String(64), nullable=False),
    # passwords.source_of
    Column("source", String(64), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Index(None, "login_sha256", "at_ms"),
    Index(None, "source", "at_ms"),
    Index(None, "at_ms"),
)

answers = Table(
    "answers",
    metadata,
    # Of requests that bore an Idempotency-Key: kept for a day, to be given again.
    Column("token_id", String(64), primary_key=True),
    Column("key_sha256", String(64), primary_key=True),
    Column("request_sha256", String(64), nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Index(None, "created_ms"),
)
