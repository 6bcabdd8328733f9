"""Take one step of a lease on the chain, as either side.

python examples/lease.py --key keys/spender.json create 0xEARNER PRODUCT --price 0.02 --days 7 --computations 3
python examples/lease.py --key keys/operator.json approve LEASE_ID

`--help` lists every step; docs/quickstart.md goes through all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from decimal import Decimal
from pathlib import Path

from pandacea_sdk.chain import ChainError, LeaseChain
from pandacea_sdk.credentials import load_account
from pandacea_sdk.errors import PandaceaError
from pandacea_sdk.protocol.deployment import Deployment

ETHER = 10**18
COMMIT_SECONDS = 60


def main() -> int:
    """Parse the command line and take one step."""
    parser = argparse.ArgumentParser(description="One step of a lease on the chain.")
    parser.add_argument("--rpc-url", default="http://127.0.0.1:8545", help="an endpoint of the chain; default: %(default)s")
    parser.add_argument(
        "--deployment", type=Path, default=Path("deployment.json"), help="the contract's record; default: ./%(default)s"
    )
    parser.add_argument("--key", type=Path, help="keystore of whoever takes the step")
    parser.add_argument("--passphrase-file", type=Path, default=Path("keys/passphrase"), help="default: %(default)s")
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    named = steps.add_parser("set-operator", help="Earner: let another key approve, commit and execute; it can never withdraw")
    named.add_argument("operator", metavar="ADDRESS")
    create = steps.add_parser("create", help="Spender: make a lease and pay its price into the contract; prints its id")
    create.add_argument("earner", metavar="ADDRESS")
    create.add_argument("product", metavar="PRODUCT_ID")
    create.add_argument("--price", type=Decimal, required=True, help="of the whole lease, in ether")
    create.add_argument("--days", type=int, default=7, help="until it expires; default: %(default)s")
    create.add_argument("--computations", type=int, default=1, help="default: %(default)s")
    for name, words in (
        ("approve", "Earner or operator: agree to a lease's terms, within 7 days of its creation"),
        ("committed", "anyone: wait until a result is committed under a lease"),
        ("execute", "Earner or operator: call the work done, when all computations are used or the lease has expired"),
        ("finalize", "Spender: pay the Earner; the Earner can do it 7 days after execute"),
        ("show", "anyone: a lease as the contract tells it"),
    ):
        steps.add_parser(name, help=words).add_argument("lease", metavar="LEASE_ID")
    steps.add_parser("withdraw", help="Earner or Spender: take out what the contract holds for this key")
    try:
        print(asyncio.run(take_step(parser.parse_args())))
    except (PandaceaError, ChainError, OSError, ValueError) as problem:
        print(f"lease.py: {problem}", file=sys.stderr)
        return 1
    return 0


async def take_step(asked: argparse.Namespace) -> str:
    """Take the step; returns the line to print."""
    key = load_account(asked.key, passphrase_file=asked.passphrase_file) if asked.key else None
    async with LeaseChain(asked.rpc_url, Deployment.read(asked.deployment), key=key) as chain:
        match asked.step:
            case "create":
                expires_at = await chain.now() + asked.days * 86_400
                price = int(asked.price * ETHER)
                return await chain.create_lease(
                    asked.earner, asked.product, price=price, expires_at=expires_at, max_computations=asked.computations
                )
            case "set-operator":
                await chain.set_operator(asked.operator)
                return f"{asked.operator} is the operator of {chain.address} now."
            case "approve":
                await chain.approve(asked.lease)
            case "execute":
                if (await chain.lease(asked.lease)).status.name.lower() == "approved":  # else the node was first
                    await chain.execute(asked.lease)
            case "finalize":
                await chain.finalize(asked.lease)
            case "withdraw":
                return f"{Decimal(await chain.withdraw()) / ETHER} ether withdrawn to {chain.address}."
            case "committed":
                await wait_for_commitment(chain, asked.lease)
        lease = await chain.lease(asked.lease)
        return f"{lease.status.name.lower()}, {lease.committed} of {lease.max_computations} computations committed"


async def wait_for_commitment(chain: LeaseChain, lease_id: str) -> None:
    """Wait until a result is committed; raises TimeoutError after COMMIT_SECONDS."""
    try:
        async with asyncio.timeout(COMMIT_SECONDS):
            while (await chain.lease(lease_id)).committed == 0:
                await asyncio.sleep(0.5)
    except TimeoutError:
        raise TimeoutError(f"nothing was committed within {COMMIT_SECONDS} s; what does `pandacea leases` say?") from None


if __name__ == "__main__":
    sys.exit(main())
