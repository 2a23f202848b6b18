"""`/v1/customers`, `/current_customer` and `/v1/customers/{id}/contracts`.

Customers are made and changed by operators; a contract is ended by its `ends_at`, never deleted.
"""

from datetime import datetime
from typing import Literal

from msgspec import UNSET, UnsetType

from handoff_client.answer import Answer, Instant, json_of, nothing
from handoff_client.answer import listing as _listing
from handoff_client.call import Call, Listing, call

AccountType = Literal["paid", "trial"]
_ONE = "/v1/customers/{customer_id}"
_CONTRACTS = _ONE + "/contracts"
_CONTRACT = _CONTRACTS + "/{contract_id}"


class Contract(Answer, frozen=True, kw_only=True):
    """In force for `starts_at <= now < ends_at`; ends_at None: open-ended."""

    id: str
    product: str
    starts_at: Instant
    ends_at: Instant | None
    created_at: Instant


class Customer(Answer, frozen=True, kw_only=True):
    """account_type: `paid` or `trial`. A suspended account hands nothing off."""

    id: str
    name: str
    account_type: str
    billing_email: str
    suspended: bool
    contracts: tuple[Contract, ...]
    created_at: Instant
    updated_at: Instant


class CurrentCustomer(Answer, frozen=True, kw_only=True):
    """What everyone may know of their own."""

    id: str
    name: str
    account_type: str
    created_at: Instant
    updated_at: Instant


def listing(*, limit: int | None = None) -> Listing[Customer]:
    """Every customer, in the order they were made; operators only."""
    return _listing("/v1/customers", Customer, query={"limit": limit})


def get(customer_id: str) -> Call[Customer]:
    return call("GET", _ONE, json_of(Customer), customer_id=customer_id)


def current() -> Call[CurrentCustomer]:
    """Whose token this is. NotFound for an operator's, which belongs to no customer."""
    return call("GET", "/current_customer", json_of(CurrentCustomer))


def basic(customer_id: str) -> Call[CurrentCustomer]:
    """The same of the customer with this id."""
    path = "/customer/{customer_id}"
    return call("GET", path, json_of(CurrentCustomer), customer_id=customer_id)


def create(name: str, account_type: AccountType, *, billing_email: str = "") -> Call[Customer]:
    body = {"name": name, "account_type": account_type, "billing_email": billing_email}
    return call("POST", "/v1/customers", json_of(Customer), body=body)


def change(
    customer_id: str,
    *,
    name: str | UnsetType = UNSET,
    account_type: AccountType | UnsetType = UNSET,
    billing_email: str | UnsetType = UNSET,
    suspended: bool | UnsetType = UNSET,
    if_match: str | None = None,
) -> Call[Customer]:
    """What is left out stays."""
    body = {
        "name": name,
        "account_type": account_type,
        "billing_email": billing_email,
        "suspended": suspended,
    }
    return call(
        "PATCH", _ONE, json_of(Customer), body=body, if_match=if_match, customer_id=customer_id
    )


def delete(customer_id: str) -> Call[None]:
    """Only one without services; its users go and its tokens are revoked."""
    return call("DELETE", _ONE, nothing, customer_id=customer_id)


def contracts(customer_id: str, *, limit: int | None = None) -> Listing[Contract]:
    """Past ones too, in the order they were made."""
    return _listing(_CONTRACTS, Contract, query={"limit": limit}, customer_id=customer_id)


def contract(customer_id: str, contract_id: str) -> Call[Contract]:
    return call(
        "GET", _CONTRACT, json_of(Contract), customer_id=customer_id, contract_id=contract_id
    )


def create_contract(
    customer_id: str,
    starts_at: datetime,
    ends_at: datetime | None = None,
    *,
    product: str = "websockets",
) -> Call[Contract]:
    body = {"product": product, "starts_at": starts_at, "ends_at": ends_at}
    return call("POST", _CONTRACTS, json_of(Contract), body=body, customer_id=customer_id)


def change_contract(
    customer_id: str,
    contract_id: str,
    *,
    starts_at: datetime | UnsetType = UNSET,
    ends_at: datetime | UnsetType | None = UNSET,
    if_match: str | None = None,
) -> Call[Contract]:
    """What is left out stays; ends_at None makes it open-ended."""
    return call(
        "PATCH",
        _CONTRACT,
        json_of(Contract),
        body={"starts_at": starts_at, "ends_at": ends_at},
        if_match=if_match,
        customer_id=customer_id,
        contract_id=contract_id,
    )
