"""How many requests an endpoint gets at once, and when: more while all goes well, half when it does not.

Additive increase, multiplicative decrease (Chiu & Jain 1989); Retry-After and rate-limit headers are kept.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LOOK_EVERY = 0.5
"""Seconds between two looks whether a stop was asked for during a pause."""
LONGEST_BACKOFF = 30.0
LONGEST_WAIT = 600.0
"""Seconds; an endpoint that asks for a longer pause stops the run."""
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Limiter:
    """Slots for requests to one model at one address."""

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self.limit = float(most)
        """Requests at once now, from 1 to the configured most."""
        self._active = 0
        self._not_before = 0.0
        self._cut_at = 0.0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def slot(self, check_stop: Callable[[], None]) -> AsyncIterator[float]:
        """Waits for a slot and for the end of any pause; gives the time the request starts at.

        `check_stop` is called before the slot is taken, and often during a pause; what it raises ends the wait.
        """
        while True:
            check_stop()
            left = self._not_before - time.monotonic()
            if left > 0:
                await asyncio.sleep(min(left, LOOK_EVERY))
                continue
            async with self._changed:
                await self._changed.wait_for(lambda: self._active < int(self.limit))
                # One is woken at a time, and wakes the next: waking all for each slot costs more than the requests.
                self._changed.notify()
                if time.monotonic() >= self._not_before:  # else a pause began while this one waited
                    check_stop()
                    self._active += 1
                    break
        try:
            yield time.monotonic()
        finally:
            async with self._changed:
                self._active -= 1
                self._changed.notify()

    def succeeded(self) -> None:
        """One more request at once for every round of successes."""
        self.limit = min(self._most, self.limit + 1 / self.limit)

    def overloaded(self, started: float) -> None:
        """Half as many requests at once; once for all requests that were sent before the last cut."""
        if started >= self._cut_at:
            self.limit = max(1.0, self.limit / 2)
            self._cut_at = time.monotonic()

    def pause(self, seconds: float) -> None:
        """Starts nothing for so long."""
        self._not_before = max(self._not_before, time.monotonic() + seconds)

    def heed(self, headers: Mapping[str, str]) -> None:
        """Pauses where a rate-limit header says that nothing is left."""
        for what in ("requests", "tokens"):
            if headers.get(f"x-ratelimit-remaining-{what}", "").strip() == "0":
                self.pause(min(LONGEST_WAIT, span_seconds(headers.get(f"x-ratelimit-reset-{what}", "")) or 0.0))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date."""
    with_ms = _number(headers.get("retry-after-ms"))
    if with_ms is not None:
        return with_ms / 1000
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None or not value:
        return seconds
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def span_seconds(text: str) -> float | None:
    """`1m30s`, `120ms` or a bare number of seconds; `None` for anything else."""
    bare = _number(text)
    if bare is not None:
        return bare
    parts = _SPAN.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return float(sum(float(number) * _UNITS[unit] for number, unit in parts))


def backoff(first: float, attempt: int, luck: float) -> float:
    """Seconds before attempt number `attempt` (from 1) is repeated: doubling, with `luck` in [0, 1) as jitter."""
    return float(min(LONGEST_BACKOFF, first * 2 ** min(attempt - 1, 10)) * (0.5 + luck / 2))


def _number(text: str | None) -> float | None:
    if text is None or not re.fullmatch(r"\s*\d{1,9}(\.\d{1,9})?\s*", text, re.ASCII):
        return None
    return float(text)
