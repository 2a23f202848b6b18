"""Every operation that `handoff_client` has, found in its modules: nothing lists them a second
time."""

import inspect
from collections.abc import Iterator
from datetime import UTC, date, datetime
from types import ModuleType
from typing import Any, NamedTuple

import handoff_client
from handoff_client import Call, Listing

NOT_OPERATIONS = {"raw"}
"""Modules of the public surface that name no path of their own."""

# Made at the same time as the client; a document that has one is held to it.
COMING: set[tuple[str, str]] = set()
"""Operations of the client that no service has yet."""

_NOW = datetime(2026, 11, 2, 3, 4, 5, tzinfo=UTC)
_ARGUMENTS: dict[str, Any] = {
    "version": 1,
    "number": 1,
    "partition": 1,
    "offset": 1,
    "limit": 1,
    "per_page": 1,
    "year": 2026,
    "value": True,
    "keep_open": True,
    "from_": _NOW,
    "to": _NOW,
    "starts_at": _NOW,
    "ends_at": _NOW,
    "expires_at": _NOW,
    "billing_start_date": date(2026, 11, 1),
    "billing_end_date": date(2026, 11, 30),
    "by": "day",
    "state": "open",
    "status": "final",
    "direction": "descend",
    "decision": "retry",
    "usage": (),
    "rows": (),
    "document": {},
    "terms": {},
    "price_book": {},
}


class Operation(NamedTuple):
    """name: `services.get`. call: with every argument given."""

    name: str
    call: Call[Any]

    @property
    def place(self) -> tuple[str, str]:
        return self.call.method, self.call.template


def operations() -> list[Operation]:
    """In the order of their names. A function with a `product` stands once for each."""
    return sorted(_found(), key=lambda one: (one.name, one.call.template))


def _found() -> Iterator[Operation]:
    for module_name in handoff_client.__all__:
        module = getattr(handoff_client, module_name)
        if not isinstance(module, ModuleType) or module_name in NOT_OPERATIONS:
            continue
        for name, function in vars(module).items():
            if inspect.isfunction(function) and function.__module__ == module.__name__:
                if name.startswith("_"):
                    continue
                products = ("websockets", "ngwaf") if "product" in _names(function) else (None,)
                for product in products:
                    made = function(**_arguments(function, product))
                    call = made.first if isinstance(made, Listing) else made
                    assert isinstance(call, Call), f"{module_name}.{name} makes no call"
                    yield Operation(f"{module_name}.{name}", call)


def _names(function: Any) -> list[str]:
    return [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]


def _arguments(function: Any, product: str | None) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name in _names(function):
        if name == "product":
            given[name] = product
        elif name == "month" and "year" in _names(function):
            given[name] = 11
        else:
            given[name] = _ARGUMENTS.get(name, name)
    return given
