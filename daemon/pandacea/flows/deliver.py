"""One skeleton for both outbox journeys: take what is due, hand it over, say so; a failure waits with back-off."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from pandacea.errors import Refused, Unavailable
from pandacea.flows.books import Books, Channel, Message
from pandacea.flows.ports import Clock

MAX_BACKOFF: Final = 300.0
"""Seconds."""


async def deliver(channel: Channel, send: Callable[[Message], Awaitable[str | None]], books: Books, clock: Clock) -> int:
    """Deliver what is due on a channel; returns how many messages are done. Stops at the first that cannot be delivered now.

    `send` returns what to note of the delivery. It raises `Refused` for a message that will never be taken (noted, not repeated),
    `Unavailable` for one to repeat later.
    """
    async with books.read() as view:
        due = await view.outbox.waiting(channel, clock.now())
    done = 0
    for waiting in due:
        try:
            note = await send(waiting.message)
        except Refused as problem:
            note = f"refused: {problem}"
        except Unavailable as problem:
            pause = min(2.0 ** min(waiting.attempts, 16), MAX_BACKOFF)
            async with books.write() as work:
                await work.outbox.again(waiting.id, clock.now() + pause, str(problem))
                await work.commit()
            return done
        async with books.write() as work:
            await work.outbox.delivered(waiting.id, clock.now(), note)
            await work.commit()
        done += 1
    return done
