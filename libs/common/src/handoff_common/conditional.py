"""ETag and If-Match: a change that was made from an old reading is refused, not applied."""

import hashlib
import json
from typing import Any

from fastapi import Request

from handoff_common.errors import ApiError


def etag(body: Any) -> str:
    """The ETag of a representation: JSON values."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return f'"{hashlib.sha256(canonical).hexdigest()[:32]}"'


def check_match(request: Request, present: Any) -> None:
    """412 where the request's If-Match names another representation than the `present` one."""
    expected = request.headers.get("if-match")
    if expected is None:
        return
    tags = [tag.strip() for tag in expected.split(",")]
    if "*" not in tags and etag(present) not in tags:
        raise ApiError(
            412,
            "precondition_failed",
            "Precondition failed",
            f"If-Match is {expected[:200]}, the present ETag is {etag(present)}; read it again and "
            "repeat",
        )
