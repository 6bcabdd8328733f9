"""`python -m pandacea.devchain [--port N]`: the embedded chain as a process of its own, until it is interrupted."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys

from pandacea.devchain.ledger import CHAIN_ID
from pandacea.devchain.server import DevChain


async def serve(port: int) -> None:
    """Run until SIGINT or SIGTERM. One line of JSON on standard output says that it answers, and where."""
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with DevChain(port) as chain:
        ready = {
            "url": chain.url,
            "chain_id": CHAIN_ID,
            "accounts": [{"address": one.address, "private_key": one.private_key} for one in chain.accounts],
        }
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        await stop.wait()


def main() -> None:
    """Parse and serve."""
    parser = argparse.ArgumentParser(prog="python -m pandacea.devchain", description=__doc__)
    parser.add_argument("--port", type=int, default=8545, help="TCP port on loopback; 0 takes a free one (default 8545)")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
