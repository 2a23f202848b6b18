"""Reads JSON values field by field and gathers everything that is wrong, with its path. Pure.

A person who sends a price book learns of all its mistakes at once. It knows nothing of prices.
"""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, TypeVar

from handoff_billing import money
from handoff_billing.errors import PriceBookInvalid
from handoff_billing.instants import month_ms
from handoff_common.errors import FieldError

T = TypeVar("T")

_SHOWN = 80


class Fields:
    """One JSON object being read. A method that finds a field wrong notes it and returns None;
    `require` ends the reading."""

    def __init__(
        self,
        value: object,
        *,
        path: str = "",
        errors: list[FieldError] | None = None,
    ) -> None:
        self._path = path
        self._errors: list[FieldError] = [] if errors is None else errors
        self._left: dict[str, Any] = {}
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            self._left = dict(value)
            self.is_object = True
        else:
            self.is_object = False
            self.wrong("", value, "an object")

    def wrong(self, name: str, value: object, allowed: str) -> None:
        """Note that a field has `value` where `allowed` was due."""
        self._errors.append(FieldError(self.at(name), f"{_show(value)} is not {allowed}"))

    def missing(self, name: str, allowed: str) -> None:
        self._errors.append(FieldError(self.at(name), f"is missing; give {allowed}"))

    def at(self, name: str) -> str:
        return ".".join(part for part in (self._path, name) if part)

    def take(self, name: str, allowed: str, *, optional: bool = False) -> Any:
        """The raw value, None where it is absent or null."""
        value = self._left.pop(name, None)
        if value is None and not optional and self.is_object:
            self.missing(name, allowed)
        return value

    def text(
        self, name: str, *, longest: int, allowed: str = "", test: Callable[[str], bool] = bool
    ) -> str | None:
        allowed = allowed or f"a text of 1 to {longest} printable characters"
        value = self.take(name, allowed)
        if value is None:
            return None
        # What is not printable could neither be shown nor, as half a surrogate pair, be stored.
        if isinstance(value, str) and len(value) <= longest and value.isprintable() and test(value):
            return value
        self.wrong(name, value, allowed)
        return None

    def choice(self, name: str, choices: Iterable[str]) -> str | None:
        allowed = "one of " + ", ".join(choices)
        value = self.take(name, allowed)
        if value is None or (isinstance(value, str) and value in choices):
            return value
        self.wrong(name, value, allowed)
        return None

    def integer(self, name: str, low: int, high: int, *, default: int | None = None) -> int | None:
        allowed = f"an integer from {low} to {high}"
        value = self.take(name, allowed, optional=default is not None)
        if value is None:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.wrong(name, value, allowed)
        return None

    def decimal(
        self,
        name: str,
        *,
        positive: bool = False,
        highest: int | None = None,
        optional: bool = False,
    ) -> Decimal | None:
        """A fixed-point decimal string, zero or more (`positive`: more). JSON numbers are refused:
        a reader in between may have made them floats."""
        limit = f", at most {highest}" if highest is not None else ""
        allowed = f"a decimal string {'above' if positive else 'from'} 0{limit}"
        value = self.take(name, allowed, optional=optional)
        if value is None:
            return None
        if not isinstance(value, str):
            self.wrong(name, value, f"{allowed}, such as '0.25'")
            return None
        try:
            parsed = money.parse(value)
        except ValueError as error:
            self.wrong(name, value, str(error))
            return None
        if parsed < 0 or (positive and not parsed) or (highest is not None and parsed > highest):
            self.wrong(name, value, allowed)
            return None
        return parsed

    def month(self, name: str) -> int | None:
        """`2026-11` as the month's start in epoch milliseconds."""
        allowed = "a UTC month such as '2026-11'"
        value = self.take(name, allowed)
        if value is None:
            return None
        try:
            return month_ms(value)
        except (TypeError, ValueError):
            self.wrong(name, value, allowed)
            return None

    def nested(self, name: str, allowed: str, *, optional: bool = False) -> "Fields | None":
        value = self.take(name, allowed, optional=optional)
        return None if value is None else self.inner(name, value)

    def inner(self, name: str, value: object) -> "Fields":
        """Another object inside this one; its errors join these."""
        return Fields(value, path=self.at(name), errors=self._errors)

    def gives(self, name: str) -> bool:
        """Whether a field not taken yet is there and not null."""
        return self._left.get(name) is not None

    def names(self) -> list[str]:
        """Fields not taken yet."""
        return list(self._left)

    def done(self) -> None:
        """Whatever was not taken is unknown."""
        for name in self._left:
            self._errors.append(FieldError(self.at(name), "is not a field of this object"))
        self._left = {}

    def require(self, made: T | None) -> T:
        """What was read. Raises PriceBookInvalid where anything was wrong."""
        if self._errors or made is None:
            raise PriceBookInvalid(self._errors)
        return made


def _show(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"
