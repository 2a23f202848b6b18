"""The request head, sans-IO: its exact bytes, what they say, and what came behind them.

Owns the strict reading of an upgrade request. Does not own what is decided from it. The bytes are
kept as they came, since they are what the origin gets: order, case, duplicates and spacing. What
two parsers could read differently (bare line feeds, folded lines, a body) is refused.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from handoff_common.request_head import (
    HEAD_MAX,
    TARGET,
    TOKEN,
    elements,
    host_name,
    parameters_of,
    path_of,
    query_of,
)
from handoff_edge.errors import Refusal, Refused, refused
from handoff_edge.proxy_header import SIGNATURE, begins_one

HELD_MAX: Final = 64 * 1024
"""Bytes behind the head that are held while the handshake goes on."""

FIELDS_MAX: Final = 200
"""Header lines of a request or an answer: each is an object, and 16 KiB could hold 4,000."""

_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*://")
_FIELD = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[ \t]*+"
    rb"((?:[\x21-\x7e\x80-\xff](?:[\x21-\x7e\x80-\xff \t]*[\x21-\x7e\x80-\xff])?)?)"
    rb"[ \t]*+\r\n"
)
"""A whole header line in which nothing is wrong: its name, and its value without the white space
around it. It is what nearly every line is; `_fault_of` says what is wrong with any other. No run of
white space can be shared out in two ways: trying all of them would take a hostile line's length
squared."""
_QUOTED = re.compile(r'"(?:[^"\\]++|\\.?)*+("?)')
"""Of an unclosed quote, all up to the end, so that it is looked for once."""
_HTTP_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")


class Field(NamedTuple):
    """A header. `name` is lower-cased, `value` without the white space around it; `start` and
    `end` delimit the value in the raw head."""

    name: str
    value: str
    start: int
    end: int


Values = Mapping[str, Sequence[str]]
"""The values of each name, in their order."""


@dataclass(frozen=True, slots=True)
class Head:
    """A valid upgrade request.

    raw: its exact bytes, the empty line included.
    target: as presented, percent-encoding untouched; `path` and `query` are its two parts.
    host: of the Host header, lower-cased, without port and trailing dot.
    key: Sec-WebSocket-Key. subprotocols: offered, in order. extensions: names offered, lower-cased.
    """

    raw: bytes
    target: str
    fields: tuple[Field, ...]
    host: str
    key: str
    subprotocols: tuple[str, ...]
    extensions: frozenset[str]
    host_start: int
    host_end: int

    @property
    def path(self) -> str:
        return path_of(self.target)

    @property
    def query(self) -> str:
        return query_of(self.target)

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """The query, decoded."""
        return parameters_of(self.target)

    def for_origin(self, override_host: str | None) -> bytes:
        """What is sent to the origin: `raw`, with the value of Host replaced where a backend says
        so, and not one other byte changed."""
        if override_host is None:
            return self.raw
        return self.raw[: self.host_start] + override_host.encode() + self.raw[self.host_end :]


class HeadReader:
    """Collects bytes until the head is whole; the result does not depend on how they were cut."""

    def __init__(self, *, limit: int = HEAD_MAX) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._line_start = 0

    def feed(self, data: bytes) -> tuple[Head, bytes] | None:
        """The head and the bytes behind it, once it is whole; None before.

        Raises Refused.
        """
        buffer = self._buffer
        searched = len(buffer)
        buffer += data
        if buffer and not TOKEN.match(buffer, 0, 1):
            if begins_one(buffer):
                raise _unexpected()
            if SIGNATURE.startswith(buffer):
                return None
            raise refused("bad_request_line", "the request line must begin with a method")
        while (at := buffer.find(b"\n", searched, self._limit)) >= 0:
            if at == 0 or buffer[at - 1] != 0x0D:
                raise refused("bare_lf", "a line ends with LF alone; it must end with CRLF")
            if at - 1 == self._line_start:
                return parse(bytes(buffer[: at + 1])), bytes(buffer[at + 1 :])
            self._line_start = searched = at + 1
        if len(buffer) >= self._limit:
            text = f"the request head is longer than {self._limit} bytes"
            raise refused("head_too_large", text)
        return None


def parse(raw: bytes) -> Head:
    """Read a head that ends with its empty line, every LF behind a CR. Raises Refused."""
    end = raw.index(b"\r\n")
    line = raw[:end]
    target = _request_line(line)
    fields = read_fields(raw, end + 2)
    values = values_of(fields)
    hosts = [field for field in fields if field.name == "host"]
    if not hosts:
        raise refused("missing_host", "Host is missing")
    if len(hosts) > 1:
        raise refused("duplicate_host", f"Host is given {len(hosts)} times; once is allowed")
    host = host_name(hosts[0].value)
    if host is None:
        text = f"Host {hosts[0].value!r} is not a name or address with an optional port"
        raise refused("bad_host", text)
    _must_be_upgrade(line, values)
    return Head(
        raw=raw,
        target=target,
        fields=fields,
        host=host,
        key=_key(values),
        subprotocols=tuple(elements(values.get("sec-websocket-protocol", ()))),
        extensions=frozenset(extension_names(values)),
        host_start=hosts[0].start,
        host_end=hosts[0].end,
    )


def _request_line(line: bytes) -> str:
    if b"\r" in line:
        raise refused("bare_cr", "the request line holds a CR without LF")
    if begins_one(line):
        raise _unexpected()
    parts = line.split(b" ")
    if len(parts) != 3 or not TOKEN.fullmatch(parts[0]):
        raise refused("bad_request_line", "the request line must be METHOD SP target SP HTTP/1.1")
    _method, target, version = parts
    if version == b"HTTP/1.0":
        raise refused("http_1_0", "HTTP/1.0 has no upgrade; HTTP/1.1 is required")
    if version != b"HTTP/1.1":
        code = "bad_http_version" if _HTTP_VERSION.fullmatch(version) else "bad_request_line"
        raise refused(code, f"{_shown(version)} is not HTTP/1.1")
    if _ABSOLUTE.match(target):
        raise refused("absolute_form", "the target is a whole URL; a path is required")
    if not TARGET.fullmatch(target):
        text = "the target must be a path of visible ASCII characters without #"
        raise refused("bad_target", text)
    return target.decode("ascii")


def _unexpected() -> Refused:
    text = "a PROXY protocol header is taken from load balancers that are named; this is none"
    return refused("proxy_header_unexpected", text)


def read_fields(raw: bytes, offset: int) -> tuple[Field, ...]:
    """The header lines of a request or answer: from `offset` in `raw` to its empty line, with which
    it ends. Raises Refused."""
    fields: list[Field] = []
    end = len(raw) - 2
    while offset < end:
        if len(fields) == FIELDS_MAX:
            text = f"there are more than {FIELDS_MAX} header lines"
            raise refused("head_too_large", text)
        found = _FIELD.match(raw, offset)
        if found is None:
            raise _fault_of(raw[offset : raw.index(b"\r\n", offset)])
        name, value = found.groups()
        start, behind = found.span(2)
        fields.append(Field(name.decode("ascii").lower(), value.decode("latin-1"), start, behind))
        offset = found.end()
    return tuple(fields)


def _fault_of(line: bytes) -> Refused:
    """What is wrong with a header line."""
    if line[:1] in (b" ", b"\t"):
        return refused("folded_header", "a header line begins with white space")
    if b"\r" in line:
        return refused("bare_cr", "a header line holds a CR without LF")
    name, colon, _ = line.partition(b":")
    if not colon or not TOKEN.fullmatch(name):
        return refused("bad_header", f"bad header line {_shown(line)}")
    return refused("bad_header", f"the value of {_shown(name)} holds a control character")


def values_of(fields: Iterable[Field]) -> Values:
    values: dict[str, list[str]] = {}
    for field in fields:
        values.setdefault(field.name, []).append(field.value)
    return values


def extension_names(values: Values) -> list[str]:
    """The names in Sec-WebSocket-Extensions. A quoted parameter may hold a comma or semicolon.

    Raises Refused for a quote that is not closed: who reads on behind it could see another name.
    """
    names = []
    for value in values.get("sec-websocket-extensions", ()):
        if not all(_QUOTED.findall(value)):
            raise refused("bad_header", "Sec-WebSocket-Extensions holds a quote that is not closed")
        unquoted = _QUOTED.sub("", value)
        names += [item.partition(";")[0].strip(" \t").lower() for item in unquoted.split(",")]
    return [name for name in names if name]


def tokens_of(values: Values, name: str) -> list[str]:
    """The elements of a header, lower-cased."""
    return [token.lower() for token in elements(values.get(name, ()))]


def _must_be_upgrade(line: bytes, values: Values) -> None:
    upgrade = tokens_of(values, "upgrade")
    if "upgrade" not in tokens_of(values, "connection") or "websocket" not in upgrade:
        raise Refused(
            Refusal(
                "not_an_upgrade",
                "this port takes WebSocket upgrade requests: Connection: Upgrade, "
                "Upgrade: websocket",
                headers=(("upgrade", "websocket"), ("sec-websocket-version", "13")),
            )
        )
    if not line.startswith(b"GET "):
        raise refused("bad_method", f"an upgrade needs GET, not {_shown(line.split(b' ')[0])}")
    for name in values:
        if name == "content-length":
            raise refused("content_length", "an upgrade request must not have Content-Length")
        if name == "transfer-encoding":
            raise refused("transfer_encoding", "an upgrade request must not have Transfer-Encoding")
    versions = values.get("sec-websocket-version", ())
    if list(versions) != ["13"]:
        found = ", ".join(versions) or "missing"
        raise Refused(
            Refusal(
                "bad_websocket_version",
                f"Sec-WebSocket-Version is {found}; 13 is required",
                headers=(("upgrade", "websocket"), ("sec-websocket-version", "13")),
            )
        )


def _key(values: Values) -> str:
    keys = values.get("sec-websocket-key", ())
    if len(keys) != 1:
        raise refused("bad_key", f"Sec-WebSocket-Key is given {len(keys)} times; once is required")
    try:
        decoded = base64.b64decode(keys[0], validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if len(decoded) != 16:
        raise refused("bad_key", "Sec-WebSocket-Key must be 16 bytes in base64")
    return keys[0]


def _shown(data: bytes) -> str:
    """A short, printable form of bytes that a client sent."""
    text = data[:60].decode("latin-1")
    return repr(text + "…" if len(data) > 60 else text)
