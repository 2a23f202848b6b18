"""The models of requests and answers, for parsing and for the OpenAPI document.

Classic bodies (form or JSON) keep only known fields; null and empty mean the default. Bodies under
`/v1` are strict. Answers are made by `views`; the models here say what they look like.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    create_model,
    field_validator,
)

from handoff_common.http import StrictModel, parse
from handoff_common.matching import Condition
from handoff_common.request_head import HEAD_MAX
from handoff_config.backends import FIELDS

Role = Literal["superuser", "engineer", "billing", "user"]
Scope = Literal["global", "global:read"]
Instant = Annotated[AwareDatetime, Field(description="RFC 3339 with a time zone")]


class Classic(BaseModel):
    """A classic body: every field may be left out, be null or be empty."""

    model_config = ConfigDict(coerce_numbers_to_str=True)


def given(model: type[Classic], values: Mapping[str, Any]) -> dict[str, Any]:
    """The given fields with the model's types; empty text is null. 422 names each wrong one."""
    blank_is_null = {k: None if v == "" else v for k, v in values.items()}
    found: dict[str, Any] = parse(model, blank_is_null).model_dump(exclude_unset=True)
    return found


def classic_request(model: type[Classic]) -> dict[str, Any]:
    """For `openapi_extra`: the body as a form or as JSON."""
    schema = model.model_json_schema()
    content = {"application/x-www-form-urlencoded": {"schema": schema}}
    content["application/json"] = {"schema": schema}
    return {"requestBody": {"required": False, "content": content}}


# --- Classic requests --------------------------------------------------------------------------


class ServiceIn(Classic):
    name: str | None = Field(None, description="1 to 255 characters, unique for the customer")
    comment: str | None = None
    type: str | None = Field(None, description="`vcl` (default) or `wasm`; only when created")
    customer_id: str | None = Field(
        None, description="Whose service it will be; only from operators, who must give it"
    )


class VersionIn(Classic):
    comment: str | None = None


class DomainIn(Classic):
    name: str | None = Field(None, description="Host name, or `*.` and a host name")
    comment: str | None = None


class DirectorIn(Classic):
    name: str | None = None
    type: int | None = Field(None, description="1 random, 3 hash, 4 client")
    quorum: int | None = Field(None, description="0 to 100; default 75")
    retries: int | None = Field(None, description="Default 5")
    capacity: int | None = Field(None, description="Default 100")
    shield: str | None = None
    comment: str | None = None


class RuleIn(Classic):
    name: str | None = None
    priority: int | None = Field(None, description="Lower is tried first; default 100")
    backend: str | None = Field(None, description="Name of the backend that takes what matches")
    host: str | None = Field(None, description="Host name, or `*.` and a host name")
    path_prefix: str | None = Field(None, description="Begins with `/`")
    path_pattern: str | None = Field(None, description="`*` is any run of characters")
    header_name: str | None = Field(None, description="Header that must be there")
    header_value: str | None = Field(None, description="And its value, exactly")
    query_name: str | None = Field(None, description="Query parameter that must be there")
    query_value: str | None = Field(None, description="And its value, exactly")
    subprotocol: str | None = Field(None, description="One that the client must offer")
    comment: str | None = None


class NameValueIn(Classic):
    """A rule's `header` or `query` given as an object."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)
    name: str | None = None
    value: str | None = None


class TokenIn(Classic):
    name: str | None = None
    scope: str | None = Field(None, description="`global` (default) or `global:read`")
    expires_at: AwareDatetime | None = Field(None, description="RFC 3339; never, where left out")
    services: list[str] | str | None = Field(None, description="Not supported; must be empty")


class UserIn(Classic):
    login: str | None = Field(None, description="Unique in the whole deployment")
    name: str | None = None
    role: str | None = Field(None, description="superuser, engineer, billing or user (default)")
    customer_id: str | None = Field(None, description="Only from operators, who must give it")


_TYPES: dict[str, Any] = {"text": str | None, "int": int | None, "bool": bool | None}
_backend_fields: dict[str, Any] = {
    field.name: (
        _TYPES[field.kind],
        Field(
            None,
            description=f"{field.about} Default: {field.default!r}."
            if field.default not in (None, "")
            else field.about,
        ),
    )
    for field in FIELDS
}
BackendIn: type[Classic] = create_model("BackendIn", __base__=Classic, **_backend_fields)

# --- Requests under /v1 --------------------------------------------------------------------------


class CustomerIn(StrictModel):
    name: str
    account_type: Literal["paid", "trial"]
    billing_email: str = ""


class Change(StrictModel):
    """Fields left out stay as they are. `nullable`: those whose null means something."""

    nullable: ClassVar[frozenset[str]] = frozenset()

    @field_validator("*", mode="before")
    @classmethod
    def _no_null(cls, value: object, info: ValidationInfo) -> object:
        if value is None and info.field_name not in cls.nullable:
            raise ValueError("null is not allowed; leave the field out to keep what it is")
        return value


# Fields of a `Change`: None where they are left out, which no caller can send.
_Text = Annotated[str | None, WithJsonSchema({"type": "string"})]
_Flag = Annotated[bool | None, WithJsonSchema({"type": "boolean"})]
_Start = Annotated[
    AwareDatetime | None,
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
_Kind = Annotated[
    Literal["paid", "trial"] | None, WithJsonSchema({"type": "string", "enum": ["paid", "trial"]})
]
_NewRole = Annotated[Role | None, WithJsonSchema({"type": "string", "enum": list(get_args(Role))})]


class CustomerChange(Change):
    """Fields left out stay as they are."""

    name: _Text = None
    account_type: _Kind = None
    billing_email: _Text = None
    suspended: _Flag = Field(
        None,
        description="A suspended account hands nothing off, and its open connections end after "
        "the edge's grace, as after a contract's end",
    )


class ContractIn(StrictModel):
    product: str = Field(description="As `websockets`")
    starts_at: Instant
    ends_at: Instant | None = Field(None, description="null: open-ended")


class ContractChange(Change):
    """Fields left out stay as they are; `ends_at` null makes it open-ended."""

    nullable = frozenset({"ends_at"})

    starts_at: _Start = None
    ends_at: Instant | None = None


class UserChange(Change):
    """Fields left out stay as they are."""

    login: _Text = None
    name: _Text = None
    role: _NewRole = None


class NewTokenIn(StrictModel):
    name: str = ""
    scope: Scope = "global"
    expires_at: Instant | None = Field(None, description="null: never")


class LimitsIn(StrictModel):
    """The limits of a service, as a whole; null is no limit. They hold per edge node."""

    max_connections: int | None = Field(None, description="Open connections")
    max_new_per_second: int | None = Field(None, description="New connections per second")
    max_bytes_per_second: int | None = Field(None, description="Bytes per second, both ways")
    idle_timeout_ms: int = Field(600_000, description="No byte either way for this long")
    half_closed_timeout_ms: int = Field(30_000, description="One side has ended, no byte")
    max_duration_ms: int | None = Field(None, description="Longest life of a connection")


_NameAndValue = {
    "type": "array",
    "prefixItems": [{"type": "string"}, {"type": "string"}],
    "minItems": 2,
    "maxItems": 2,
}
_MAX_LINES = 1_000


class MatchIn(StrictModel):
    """The upgrade request of a client that opens `url`. Together at most as long as the head that
    an edge takes."""

    url: str = Field(
        max_length=HEAD_MAX,
        description="`ws://` or `wss://`, a host with an optional port, path and query as sent",
        examples=["wss://chat.example.com/rooms/1?lang=en"],
    )
    headers: Annotated[
        list[tuple[str, str]],
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "array", "items": _NameAndValue, "maxItems": _MAX_LINES},
                    {
                        "type": "object",
                        "additionalProperties": {"type": "string"},
                        "maxProperties": _MAX_LINES,
                    },
                ]
            }
        ),
    ] = Field(
        [],
        max_length=_MAX_LINES,
        description="Names and values in pairs, or an object; without `Host`, which `url` says. "
        "What every upgrade request has is there unless given",
    )
    subprotocols: list[str] = Field(
        [], max_length=_MAX_LINES, description="Offered, in order of preference"
    )

    @field_validator("headers", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        return list(value.items()) if isinstance(value, dict) else value


# --- Answers -------------------------------------------------------------------------------------


class Status(BaseModel):
    status: Literal["ok"] = "ok"


class Validity(BaseModel):
    """`warnings` do not make a version invalid by themselves; those about WebSockets stop it from
    being activated while WebSockets is enabled."""

    status: Literal["ok", "error"]
    msg: str | None
    errors: list[str]
    warnings: list[str]


class Stamped(BaseModel):
    created_at: datetime | None
    updated_at: datetime | None
    deleted_at: datetime | None


class VersionOut(Stamped):
    number: int
    service_id: str
    comment: str
    active: bool
    locked: bool
    deployed: bool
    staging: bool
    testing: bool
    environments: list[Any]


class ServiceOut(Stamped):
    id: str
    name: str
    customer_id: str
    type: Literal["vcl", "wasm"]
    comment: str
    publish_key: str
    paused: bool
    versions: list[VersionOut]
    environments: list[Any]


class ServiceListed(ServiceOut):
    version: int = Field(description="The active version, else the newest")


class DomainOut(Stamped):
    name: str
    comment: str
    service_id: str
    version: int


_PLAIN: dict[str, Any] = {"text": str, "int": int, "bool": bool}
_NEVER_NULL = {"name", "address"} | {f.name for f in FIELDS if f.default is not None}
_backend_answers: dict[str, Any] = {
    field.name: (
        (_PLAIN if field.name in _NEVER_NULL else _TYPES)[field.kind],
        Field(description=field.about),
    )
    for field in FIELDS
}


class _BackendBase(Stamped):
    service_id: str
    version: int
    locked: bool


BackendOut: type[BaseModel] = create_model("BackendOut", __base__=_BackendBase, **_backend_answers)


class DirectorOut(Stamped):
    name: str
    type: int
    quorum: int
    retries: int
    capacity: int
    shield: str | None
    comment: str
    backends: list[BackendOut]
    service_id: str
    version: int


class LinkOut(Stamped):
    director: str
    backend_name: str
    service_id: str
    version: int


class RuleOut(Stamped):
    name: str
    priority: int
    backend: str
    host: str | None
    path_prefix: str | None
    path_pattern: str | None
    header_name: str | None
    header_value: str | None
    query_name: str | None
    query_value: str | None
    subprotocol: str | None
    comment: str
    service_id: str
    version: int


class VersionDetail(VersionOut):
    domains: list[DomainOut]
    backends: list[BackendOut]
    directors: list[DirectorOut]
    websocket_rules: list[RuleOut]


class ServiceDetail(ServiceOut):
    active_version: VersionDetail | None
    version: VersionDetail = Field(description="The one asked for, else the newest")


class TokenOut(BaseModel):
    """`expires_at` and `deleted_at` are absent where there is none."""

    id: str
    token_id: str
    user_id: str | None = None
    customer_id: str | None = None
    name: str
    scope: Scope
    services: list[str]
    session: bool = Field(description="Whether signing in made it")
    created_at: datetime
    expires_at: datetime | None = None
    deleted_at: datetime | None = None


class TokenCreated(TokenOut):
    access_token: str | None = Field(
        None, description="Shown this once; absent when the answer is repeated"
    )


class UserOut(Stamped):
    id: str
    user_id: str
    login: str
    name: str
    role: Literal["superuser", "engineer", "billing", "user", "operator"]
    customer_id: str | None = None
    limit_services: bool
    locked: bool
    require_new_password: bool
    two_factor_auth_enabled: bool
    two_factor_setup_required: bool
    password_set_at: datetime | None = Field(description="null: has none, and cannot sign in")


class ContractOut(BaseModel):
    id: str
    contract_id: str
    product: str
    starts_at: datetime
    ends_at: datetime | None
    created_at: datetime


class CustomerOut(BaseModel):
    id: str
    customer_id: str
    name: str
    account_type: Literal["paid", "trial"]
    billing_email: str
    suspended: bool
    contracts: list[ContractOut]
    created_at: datetime
    updated_at: datetime


class ClassicCustomerOut(Stamped):
    id: str
    name: str
    account_type: Literal["paid", "trial"]
    billing_network_type: Literal["public"]


class Ref(BaseModel):
    id: str
    object: Literal["product", "service", "customer"]


class ProductOut(BaseModel):
    product: Ref
    service: Ref
    links: dict[str, str] = Field(alias="_links")


class ProductServices(BaseModel):
    """`customer` is absent where an operator asks for all."""

    product: Ref
    customer: Ref | None = None
    services: list[str]
    links: dict[str, str] = Field(alias="_links")


class ViolationOut(BaseModel):
    object: Literal["backend", "director", "websocket-rule", "product"]
    name: str
    field: str
    value: bool | int | str
    allowed: str
    reason: str


class Check(BaseModel):
    """What would stop WebSockets on this service."""

    service_id: str
    version: int | None = Field(description="The version looked at; null: none is active")
    entitled: bool
    entitlement: str | None = Field(description="What is lacking; null where entitled")
    contact: str | None = Field(description="Whom to ask for what is lacking; null where entitled")
    enabled: bool
    may_toggle: bool = Field(description="Whether the asking token may enable and disable")
    compatible: bool
    violations: list[ViolationOut]


class MatchedDomain(BaseModel):
    name: str | None = Field(description="The version's domain that takes the host; null: none")
    claimed: bool = Field(description="Whether the version has one")


class MatchRefusal(BaseModel):
    """As an edge would refuse the request by this configuration."""

    code: Literal["unknown_domain", "no_rule"]
    text: str


class Trial(BaseModel):
    rule: str
    matched: bool
    failed: Condition | None = Field(description="The first condition that does not hold")


class MatchOut(BaseModel):
    """`rule` is null where there are no rules and the only backend takes all; with a `refusal`,
    `rule` and `backend` are both null."""

    service_id: str
    version: int
    domain: MatchedDomain
    rule: str | None
    backend: str | None
    refusal: MatchRefusal | None
    tried: list[Trial] = Field(description="In order, up to the first rule that matches")


class LimitsOut(LimitsIn):
    service_id: str


class ActorOut(BaseModel):
    token_id: str | None
    user_id: str | None
    login: str


ServiceObject = Literal[
    "service",
    "version",
    "domain",
    "backend",
    "director",
    "websocket_rule",
    "product",
    "limits",
]


class HistoryEntry(BaseModel):
    """`before` and `after`: the object on the two sides of the change, null where it was not."""

    revision: int
    at: datetime
    type: str
    object: str
    name: str
    version: int | None
    service_id: str | None
    customer_id: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    actor: ActorOut
    ip: str
    request_id: str
