"""What stands before a request's body: the caller's token, and a bound on the bytes.

A body is memory and work that a caller makes us spend, so nothing of it is read for a caller
without a token in force, and it is counted while it arrives, whatever length was announced.
"""

from collections.abc import Callable

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handoff_common.access import AccessView, caller
from handoff_common.errors import ApiError, HandoffError

MAX_BODY_BYTES = 1_048_576


class BodyRefused(HTTPException):
    """Carries an error through the framework, which passes on only exceptions of this kind that
    come up while it reads a body, and takes all others for a body that is none."""

    def __init__(self, cause: HandoffError) -> None:
        super().__init__(500, str(cause))
        self.cause = cause


class BodyGuard:
    """Refuses when the application begins to read a body: 401 without a token in force, 413 for
    what is announced as too long; and while it reads one, 413 where it becomes too long.

    access: where tokens are looked up; None while the application has none, in parts of tests.
    """

    def __init__(self, app: ASGIApp, *, access: Callable[[], AccessView | None]) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False
        size = 0

        async def guarded() -> Message:
            nonlocal begun, size
            if not begun:
                begun = True
                await self._admit(Request(scope))
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BODY_BYTES:
                raise too_large()
            return message

        await self._app(scope, guarded, send)

    async def _admit(self, request: Request) -> None:
        access = self._access()
        if access is not None:
            try:
                await caller(access, request)
            except HandoffError as error:
                raise BodyRefused(error) from error
        announced = request.headers.get("content-length", "0")
        # An absurd count of digits is not worth a conversion; what is no number the server refuses.
        digits = announced.isascii() and announced.isdigit()
        if digits and (len(announced) > 18 or int(announced) > MAX_BODY_BYTES):
            raise too_large()


def too_large() -> BodyRefused:
    return BodyRefused(
        ApiError(
            413, "body_too_large", "Request body too large", f"allowed: {MAX_BODY_BYTES} bytes"
        )
    )
