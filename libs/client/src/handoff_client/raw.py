"""Calls that no module here has: of a newer server, or to see an answer as it is."""

from collections.abc import Mapping
from typing import Any

import msgspec

from handoff_client.answer import anything
from handoff_client.call import REPEATS, Call, Repeat


def request(
    method: str,
    path: str,
    *,
    query: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
    repeat: Repeat | None = None,
) -> Call[Any]:
    """The JSON that is answered as built-in types, other bodies as text, None where there is none.
    path: ready to be sent, its parts quoted. repeat: by the method where it is not given."""
    return Call(
        method=method,
        template=path,
        path=path,
        decode=anything,
        repeat=REPEATS[method] if repeat is None else repeat,
        query=tuple((query or {}).items()),
        body=None if body is None else msgspec.json.encode(body),
    )
