"""Bytes on the wire ↔ events. JSON, one decoder per topic, built once."""

from functools import cache
from typing import Any

import msgspec

from handoff_common.errors import Unreadable
from handoff_common.events import Envelope
from handoff_common.topics import TOPICS

_encoder = msgspec.json.Encoder()


class _Peek(msgspec.Struct, frozen=True):
    type: str = ""


class _PeekCustomer(msgspec.Struct, frozen=True):
    customer_id: str | None = None


class _PeekData(msgspec.Struct, frozen=True):
    data: _PeekCustomer = _PeekCustomer()


_peek_type = msgspec.json.Decoder(_Peek)
_peek_customer = msgspec.json.Decoder(_PeekData)


@cache
def _decoder(topic: str) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(TOPICS[topic].events)


@cache
def _tags(topic: str) -> frozenset[str]:
    union = TOPICS[topic].events
    members = getattr(union, "__args__", (union,))
    return frozenset(member.__struct_config__.tag for member in members)


def encode(event: Envelope) -> bytes:
    return _encoder.encode(event)


def decode(topic: str, value: bytes) -> Any:
    """One of the topic's events (`topics.TOPICS[topic].events`).

    Unknown fields are ignored. Raises Unreadable, which says whether the type is unknown or the
    record malformed, and whose it is where that can still be read.
    """
    try:
        return _decoder(topic).decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        customer = _customer(value)
        try:
            tag = _peek_type.decode(value).type
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Unreadable("malformed", str(error), customer) from None
        if tag not in _tags(topic):
            raise Unreadable("unknown_type", f"type {tag!r} in {topic}", customer) from None
        raise Unreadable("malformed", f"{tag}: {error}", customer) from None


def _customer(value: bytes) -> str | None:
    try:
        return _peek_customer.decode(value).data.customer_id
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
