"""`/service/{id}/version/{n}/backend`: where a version hands connections to. Changed only in a
draft.

WebSockets leaves these to the user: `name`, `address` (or `hostname`, `ipv4`, `ipv6`), `port`,
`use_ssl`, `override_host`, `comment`. Every other setting is stored and given back, and must be at
its default where WebSockets is to be enabled.
"""

from typing import TypedDict, Unpack

from handoff_client.answer import Answer, Instant, classic_listing, json_of, nothing
from handoff_client.call import Call, Listing, Repeat, call

_MANY = "/service/{service_id}/version/{version}/backend"
_ONE = _MANY + "/{name}"


class Settings(TypedDict, total=False):
    """What is left out stays as it is (its default in a new backend); None is the default."""

    address: str | None
    hostname: str | None
    ipv4: str | None
    ipv6: str | None
    port: int | None
    use_ssl: bool | None
    override_host: str | None
    comment: str | None
    connect_timeout: int | None
    first_byte_timeout: int | None
    fetch_timeout: int | None
    between_bytes_timeout: int | None
    max_conn: int | None
    weight: int | None
    error_threshold: int | None
    auto_loadbalance: bool | None
    ssl_check_cert: bool | None
    request_condition: str | None
    prefer_ipv6: bool | None
    max_use: int | None
    max_lifetime: int | None
    ssl_ca_cert: str | None
    ssl_cert_hostname: str | None
    ssl_sni_hostname: str | None
    ssl_hostname: str | None
    ssl_ciphers: str | None
    ssl_client_cert: str | None
    ssl_client_key: str | None
    client_cert: str | None
    min_tls_version: str | None
    max_tls_version: str | None
    shield: str | None
    healthcheck: str | None
    share_key: str | None
    keepalive_time: int | None
    tcp_keepalive_enable: bool | None
    tcp_keepalive_interval: int | None
    tcp_keepalive_probes: int | None
    tcp_keepalive_time: int | None


class Changes(Settings, total=False):
    """Settings, and the new name."""

    name: str


class Backend(Answer, frozen=True, kw_only=True):
    """address: host name or IP address; also in the one of hostname, ipv4, ipv6 that it is. Keys
    are shown to those who may write them."""

    name: str
    address: str
    hostname: str | None
    ipv4: str | None
    ipv6: str | None
    port: int
    use_ssl: bool
    override_host: str | None
    comment: str
    connect_timeout: int
    first_byte_timeout: int
    fetch_timeout: int
    between_bytes_timeout: int
    max_conn: int
    weight: int
    error_threshold: int
    auto_loadbalance: bool
    ssl_check_cert: bool
    request_condition: str
    prefer_ipv6: bool
    max_use: int
    max_lifetime: int
    ssl_ca_cert: str | None
    ssl_cert_hostname: str | None
    ssl_sni_hostname: str | None
    ssl_hostname: str | None
    ssl_ciphers: str | None
    ssl_client_cert: str | None
    ssl_client_key: str | None
    client_cert: str | None
    min_tls_version: str | None
    max_tls_version: str | None
    shield: str | None
    healthcheck: str | None
    share_key: str | None
    keepalive_time: int | None
    tcp_keepalive_enable: bool | None
    tcp_keepalive_interval: int | None
    tcp_keepalive_probes: int | None
    tcp_keepalive_time: int | None
    locked: bool
    service_id: str
    version: int
    created_at: Instant
    updated_at: Instant


def listing(service_id: str, version: int) -> Listing[Backend]:
    return classic_listing(_MANY, Backend, service_id=service_id, version=version)


def get(service_id: str, version: int, name: str) -> Call[Backend]:
    return call("GET", _ONE, json_of(Backend), service_id=service_id, version=version, name=name)


def create(service_id: str, version: int, name: str, **settings: Unpack[Settings]) -> Call[Backend]:
    """`with_headers()` tells what WebSockets would not take (`warning`)."""
    body = {"name": name, **settings}
    return call("POST", _MANY, json_of(Backend), body=body, service_id=service_id, version=version)


def update(
    service_id: str, version: int, backend: str, **changes: Unpack[Changes]
) -> Call[Backend]:
    """backend: its present name."""
    return call(
        "PUT",
        _ONE,
        json_of(Backend),
        body=changes,
        # Where the first has renamed it, a repeat would not find it.
        repeat=Repeat.NEVER if "name" in changes else None,
        service_id=service_id,
        version=version,
        name=backend,
    )


def delete(service_id: str, version: int, name: str) -> Call[None]:
    return call("DELETE", _ONE, nothing, service_id=service_id, version=version, name=name)
