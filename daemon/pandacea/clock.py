"""The machine's clock, as `flows.ports.Clock`."""

from __future__ import annotations

import time


class SystemClock:
    """Returns the machine's time."""

    def now(self) -> float:
        """Return the time in Unix seconds."""
        return time.time()
