"""`python -m pandacea.devchain [--port N] [--fund ADDRESS ...]`: run the embedded chain as a process until it is interrupted.

`pandacea devchain` is the same with output for people.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from typing import Final

from pandacea.devchain.ledger import CHAIN_ID
from pandacea.devchain.server import DevChain
from pandacea.errors import Broken

FUNDS_WEI: Final = 100 * 10**18
"""Wei that each address of `--fund` gets."""


async def serve(port: int, fund: Sequence[str] = (), *, as_json: bool = True) -> None:
    """Serve the chain until SIGINT or SIGTERM; one line on standard output says that it answers, and where.

    Raises:
        Broken: the port is taken.
        Refused: an address to fund is malformed.
    """
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    try:
        async with DevChain(port) as chain:
            for address in fund:
                chain.fund(address, FUNDS_WEI)
            sys.stdout.write((_json_line(chain) if as_json else _sentence(chain, fund)) + "\n")
            sys.stdout.flush()
            await stop.wait()
    except OSError as error:
        raise Broken(f"The chain cannot listen on 127.0.0.1:{port}: {error.strerror}. Name another port with --port.") from error


def _json_line(chain: DevChain) -> str:
    accounts = [{"address": account.address, "private_key": account.private_key} for account in chain.accounts]
    return json.dumps({"url": chain.url, "chain_id": CHAIN_ID, "accounts": accounts})


def _sentence(chain: DevChain, fund: Sequence[str]) -> str:
    funded = "".join(f"\n  {address}  {FUNDS_WEI // 10**18} ether" for address in fund)
    return (
        f"Development chain {CHAIN_ID} at {chain.url}, until Ctrl-C. Nothing on it is worth anything, and nothing is kept.{funded}"
    )


def run(port: int, fund: Sequence[str], *, as_json: bool) -> int:
    """Serve in this process until a signal."""
    asyncio.run(serve(port, fund, as_json=as_json))
    return 0


def main() -> None:
    """Parse the arguments and serve, for a program that reads the first line."""
    parser = argparse.ArgumentParser(prog="python -m pandacea.devchain", description=__doc__)
    parser.add_argument("--port", type=int, default=8545, help="TCP port on loopback; 0 takes a free one (default 8545)")
    parser.add_argument("--fund", nargs="+", action="extend", default=[], metavar="ADDRESS", help="send each of these 100 ether")
    parsed = parser.parse_args()
    run(parsed.port, parsed.fund, as_json=True)


if __name__ == "__main__":
    main()
