"""What stands before a request's body: the caller's token, and a bound on the bytes.

A body is memory and work that a caller makes us spend, so nothing of it is read for a caller
without a token in force, and it is counted while it arrives, whatever length was announced. Paths
that a token is got from are open to all, and take a short body only.
"""

from collections.abc import Callable, Collection

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handoff_common.access import AccessView, caller
from handoff_common.errors import ApiError, HandoffError

MAX_BODY_BYTES = 1_048_576
MAX_OPEN_BODY_BYTES = 16_384


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
    open_paths: that anyone may send a body to, of at most `MAX_OPEN_BODY_BYTES`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        access: Callable[[], AccessView | None],
        open_paths: Collection[str] = (),
    ) -> None:
        self._app = app
        self._access = access
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False
        size = 0
        is_open = scope["path"] in self._open_paths
        most = MAX_OPEN_BODY_BYTES if is_open else MAX_BODY_BYTES

        async def guarded() -> Message:
            nonlocal begun, size
            if not begun:
                begun = True
                request = Request(scope)
                if not is_open:
                    await self._admit(request)
                _refuse_announced(request, most)
            message = await receive()
            size += len(message.get("body", b""))
            if size > most:
                raise too_large(most)
            return message

        await self._app(scope, guarded, send)

    async def _admit(self, request: Request) -> None:
        access = self._access()
        if access is not None:
            try:
                await caller(access, request)
            except HandoffError as error:
                raise BodyRefused(error) from error


def _refuse_announced(request: Request, most: int) -> None:
    announced = request.headers.get("content-length", "0")
    # An absurd count of digits is not worth a conversion; what is no number the server refuses.
    digits = announced.isascii() and announced.isdigit()
    if digits and (len(announced) > 18 or int(announced) > most):
        raise too_large(most)


def too_large(most: int) -> BodyRefused:
    return BodyRefused(
        ApiError(413, "body_too_large", "Request body too large", f"allowed: {most} bytes")
    )
