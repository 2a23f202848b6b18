"""Every way in which the edge says no: one code, one status, one place.

A refusal is answered in plain text with `Connection: close` and its code in `x-handoff-error`. The
codes are part of the interface: they stand in logs, metrics and the documentation.
"""

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType

from handoff_common.errors import HandoffError

STATUS: Mapping[str, int] = MappingProxyType(
    {
        # The request head (head.py)
        "bad_request_line": 400,
        "bad_target": 400,
        "absolute_form": 400,
        "http_1_0": 400,
        "bad_http_version": 400,
        "bare_lf": 400,
        "bare_cr": 400,
        "bad_header": 400,
        "folded_header": 400,
        "missing_host": 400,
        "duplicate_host": 400,
        "bad_host": 400,
        "bad_method": 400,
        "content_length": 400,
        "transfer_encoding": 400,
        "bad_key": 400,
        # Who the client is (proxy_header.py)
        "proxy_header_missing": 400,
        "proxy_header_malformed": 400,
        "proxy_header_unexpected": 400,
        "head_timeout": 408,
        "not_an_upgrade": 426,
        "bad_websocket_version": 426,
        "head_too_large": 431,
        # The decision (decision.py)
        "unknown_domain": 421,
        "tls_name_mismatch": 421,
        "not_enabled": 403,
        "no_contract": 403,
        "trial_account": 403,
        "suspended": 403,
        "over_budget": 503,
        "no_rule": 404,
        "too_many_connections": 429,
        "too_many_new": 429,
        # The node
        "draining": 503,
        "busy": 503,
        "no_configuration": 503,
        "journal_unavailable": 503,
        "internal": 500,
        # The origin (origin.py, answer.py)
        "origin_lookup_busy": 503,
        "origin_lookup_failed": 502,
        "origin_unreachable": 502,
        "origin_address_refused": 502,
        "origin_tls_self_signed": 502,
        "origin_tls_untrusted": 502,
        "origin_tls_expired": 502,
        "origin_tls_name": 502,
        "origin_tls_failed": 502,
        "origin_closed": 502,
        "origin_invalid_answer": 502,
        "origin_answer_too_large": 502,
        "origin_bad_framing": 502,
        "origin_bad_upgrade": 502,
        "origin_bad_accept": 502,
        "origin_bad_subprotocol": 502,
        "origin_bad_extension": 502,
        "origin_timeout": 504,
        "origin_tls_timeout": 504,
        "origin_answer_timeout": 504,
    }
)
"""Refusal code → HTTP status."""

UNANSWERED = frozenset(
    {
        "tls_failed",
        "tls_timeout",
        "head_incomplete",
        "too_many_heads",
        "client_gone",
        "never_established",
        "origin_declined",
    }
)
"""Codes that are counted and logged but are no answer of ours: nobody is there to read one, it
would cost what the limit protects, or the origin's own answer was passed on."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refused handoff.

    code: a key of STATUS. text: for a person; says what was found and what would be accepted.
    retry_after: seconds, where trying again makes sense. headers: what the status demands besides.
    """

    code: str
    text: str
    retry_after: int | None = None
    headers: tuple[tuple[str, str], ...] = field(default=())

    @property
    def status(self) -> int:
        return STATUS[self.code]


class Refused(HandoffError):
    """Carries a refusal up to whoever answers the client."""

    code = "refused"

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.code}: {refusal.text}")
        self.refusal = refusal


def refused(code: str, text: str, *, retry_after: int | None = None) -> Refused:
    return Refused(Refusal(code, text, retry_after))


def out_of_descriptors(error: BaseException) -> Refused | None:
    """The refusal where that is what the error says."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return refused("busy", "this edge is out of descriptors", retry_after=1)
    return None


def answer_bytes(refusal: Refusal) -> bytes:
    """The whole HTTP answer to a refused client."""
    headers = [("x-handoff-error", refusal.code), *refusal.headers]
    if refusal.retry_after is not None:
        headers.append(("retry-after", str(refusal.retry_after)))
    return http_answer(refusal.status, headers, (refusal.text + "\n").encode())


def http_answer(status: int, headers: list[tuple[str, str]], body: bytes) -> bytes:
    """A complete answer that ends the connection; `headers` besides the framing ones."""
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    lines = [f"HTTP/1.1 {status} {phrase}", "connection: close", f"content-length: {len(body)}"]
    if not any(name == "content-type" for name, _ in headers):
        lines.append("content-type: text/plain; charset=utf-8")
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
