"""When a call is sent again, and after how long. Pure: time and chance are arguments."""

from dataclasses import dataclass
from enum import Enum

from handoff_client.call import Repeat
from handoff_client.errors import AWAY


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """timeout: of one attempt. deadline: of the whole call, waits included. attempts: at most, the
    first included; 1 never repeats. first_wait, longest_wait: bounds of the wait before the second
    attempt, which doubles from attempt to attempt, and of every wait. All in seconds.

    Raises ValueError for bounds that no call could keep.
    """

    timeout: float = 30.0
    deadline: float = 60.0
    attempts: int = 4
    first_wait: float = 0.2
    longest_wait: float = 5.0

    def __post_init__(self) -> None:
        if not (self.timeout > 0 and self.deadline > 0):
            raise ValueError(f"timeout and deadline must be above 0 s: {self}")
        if self.attempts < 1 or not 0 <= self.first_wait <= self.longest_wait:
            raise ValueError(f"attempts must be 1 or more, waits 0 s or more: {self}")


class Trouble(Enum):
    """Why an attempt has no result, by what is known of the request."""

    UNSENT = "it did not leave: no connection"
    LOST = "it may have been done: no answer, or 502, 503, 504"
    REFUSED = "it was not done: 429"


def trouble_of(status: int) -> Trouble | None:
    """What an answer's status means; None for an answer that a repeat would not change."""
    if status == 429:
        return Trouble.REFUSED
    return Trouble.LOST if status in AWAY else None


def wait_before_repeat(
    policy: RetryPolicy,
    repeat: Repeat,
    trouble: Trouble,
    *,
    attempt: int,
    elapsed: float,
    chance: float,
    retry_after: float | None = None,
) -> float | None:
    """Seconds until the next attempt; None where there is none.

    attempt: the number of the one that failed, from 1. elapsed: seconds since the call began.
    chance: from 0 to 1; waits are drawn from the whole range, so that callers who failed together
    do not come back together. retry_after: what the service asked for at least.
    """
    if attempt >= policy.attempts:
        return None
    if trouble is Trouble.LOST and repeat is Repeat.NEVER:
        return None
    # The exponent is bounded so that no number of attempts overflows a float.
    longest = min(policy.longest_wait, policy.first_wait * 2.0 ** min(attempt - 1, 64))
    wait = (retry_after or 0.0) + chance * longest
    return None if elapsed + wait >= policy.deadline else wait
