"""`/service`: services, and everything that one of its versions has."""

from typing import Literal

from msgspec import UNSET, UnsetType

from handoff_client.answer import Answer, Instant, classic_listing, json_of, nothing
from handoff_client.backends import Backend
from handoff_client.call import Call, Listing, call
from handoff_client.directors import Director
from handoff_client.domains import Domain
from handoff_client.versions import Version
from handoff_client.websocket_rules import Rule


class Service(Answer, frozen=True, kw_only=True):
    """type: `vcl` or `wasm`, which mean nothing here."""

    id: str
    name: str
    customer_id: str
    type: str
    comment: str
    versions: tuple[Version, ...]
    created_at: Instant
    updated_at: Instant
    deleted_at: Instant | None


class ListedService(Service, frozen=True, kw_only=True):
    """version: the active one, else the newest."""

    version: int


class VersionDetail(Version, frozen=True, kw_only=True):
    domains: tuple[Domain, ...]
    backends: tuple[Backend, ...]
    directors: tuple[Director, ...]
    websocket_rules: tuple[Rule, ...]


class ServiceDetail(Service, frozen=True, kw_only=True):
    """version: the one asked for, else the newest."""

    active_version: VersionDetail | None
    version: VersionDetail


def listing(
    *,
    direction: Literal["ascend", "descend"] = "ascend",
    per_page: int | None = None,
    customer_id: str | None = None,
) -> Listing[ListedService]:
    """The customer's services in the order they were created (an operator's: everyone's).
    per_page: 1 to 200, 20 where it is left out. customer_id: operators may say whose."""
    query = {"direction": direction, "per_page": per_page, "customer_id": customer_id}
    return classic_listing("/service", ListedService, query=query)


def search(name: str) -> Call[Service]:
    """The one of exactly this name. NotFound where there is none."""
    return call("GET", "/service/search", json_of(Service), query={"name": name})


def get(service_id: str) -> Call[Service]:
    return call("GET", "/service/{service_id}", json_of(Service), service_id=service_id)


def details(service_id: str, *, version: int | None = None) -> Call[ServiceDetail]:
    """With everything in its active version, and in `version` or the newest."""
    return call(
        "GET",
        "/service/{service_id}/details",
        json_of(ServiceDetail),
        query={"version": version},
        service_id=service_id,
    )


def create(
    name: str,
    *,
    comment: str = "",
    type: Literal["vcl", "wasm"] = "vcl",  # noqa: A002  (the API's name)
    customer_id: str | UnsetType = UNSET,
) -> Call[Service]:
    """A service with version 1, a draft; WebSockets are off. customer_id: operators say whose."""
    body = {"name": name, "comment": comment, "type": type, "customer_id": customer_id}
    return call("POST", "/service", json_of(Service), body=body)


def update(
    service_id: str, *, name: str | UnsetType = UNSET, comment: str | UnsetType = UNSET
) -> Call[Service]:
    """What is left out stays."""
    body = {"name": name, "comment": comment}
    return call("PUT", "/service/{service_id}", json_of(Service), body=body, service_id=service_id)


def delete(service_id: str) -> Call[None]:
    """Invalid while a version is active."""
    return call("DELETE", "/service/{service_id}", nothing, service_id=service_id)
