"""Server-sent events: the answer that goes on while its viewer looks."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from handoff_console.board import Event
from handoff_console.feeds import Full, Seat

HEARTBEAT_SECONDS = 15.0
SEND_SECONDS = 20.0
"""A viewer who takes nothing for so long is let go."""
LONGEST_SECONDS = 900.0
"""Then the browser asks again, with the cookie that it has by then."""
_RETRY_MS = 3_000
_HEARTBEAT = b": still here\n\n"
_FULL = "As many live pages are open as this server takes. Reload the page to see newer figures.\n"


SIGNED_OUT = Event(
    "status",
    '<span class="notice warn">Your session has ended. <a href="/sign-in">Sign in again</a></span>',
)


def signed_out() -> Response:
    """The stream of somebody who is not signed in any more: the page says so, and asks no more."""
    return Response(
        encoded([SIGNED_OUT, Event("ended", "revoked")]), media_type="text/event-stream"
    )


def encoded(events: Sequence[Event]) -> bytes:
    """As the standard has it: a line of HTML is a line of data."""
    text = []
    for event in events:
        lines = event.html.splitlines() or [""]
        text.append(f"event: {event.name}\n" + "".join(f"data: {one}\n" for one in lines) + "\n")
    return "".join(text).encode()


class EventStream(StreamingResponse):
    """What a seat is told, until its viewer goes, its token is revoked, or the process stops.

    seat: takes it when the answer begins and gives it back when that ends, whatever ends it; where
    there is none left, the answer is 503. last: by why the seat has ended, what is told before the
    page is told to close the stream (`ended`); None: the browser is to ask again.
    """

    def __init__(
        self,
        seat: Callable[[], AbstractContextManager[Seat]],
        last: Callable[[str], Sequence[Event] | None],
        now: Callable[[], float],
    ) -> None:
        super().__init__(
            iter(()),
            media_type="text/event-stream",
            # A proxy that gathers what it passes on would hold the events back.
            headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"},
        )
        self._seat = seat
        self._last = last
        self._now = now
        self._taken: Seat | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def bounded(message: Message) -> None:
            async with asyncio.timeout(SEND_SECONDS):
                await send(message)

        try:
            with self._seat() as seat:
                self._taken = seat
                await super().__call__(scope, receive, bounded)
        except Full:
            await PlainTextResponse(_FULL, 503, {"Retry-After": "60"})(scope, receive, send)
        except TimeoutError:
            # It is not there any more, or cannot follow. The server closes what is left of it.
            return

    async def stream_response(self, send: Send) -> None:
        assert self._taken is not None, "only __call__ answers"
        seat, ends = self._taken, self._now() + LONGEST_SECONDS
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        await send(_body(f"retry: {_RETRY_MS}\n\n".encode()))
        while self._now() < ends:
            events = await seat.next(HEARTBEAT_SECONDS)
            if events is None:
                last = self._last(seat.ended)
                if last is not None:
                    await send(_body(encoded([*last, Event("ended", seat.ended)])))
                break
            await send(_body(encoded(events) if events else _HEARTBEAT))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _body(data: bytes) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": True}
