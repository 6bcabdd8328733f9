"""One skeleton for both outbox journeys: take what is due, hand it over, say so; a failure waits with back-off.

On an ordered channel the pause is the channel's: nothing overtakes the message that failed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from pandacea.errors import Refused, Unavailable
from pandacea.flows.books import Books, Channel, Message
from pandacea.flows.ports import Clock

MAX_BACKOFF: Final = 300.0
"""Seconds."""
MAX_ORDERED_BACKOFF: Final = 30.0
"""Seconds; on an ordered channel everything waits for its first message, so a broker that is back is tried soon."""


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
            pause = min(2.0 ** min(waiting.attempts, 16), MAX_ORDERED_BACKOFF if channel.ordered else MAX_BACKOFF)
            async with books.write() as work:
                await work.outbox.again(waiting.id, clock.now() + pause, str(problem))
                await work.commit()
            return done
        async with books.write() as work:
            await work.outbox.delivered(waiting.id, clock.now(), note)
            await work.commit()
        done += 1
    return done
