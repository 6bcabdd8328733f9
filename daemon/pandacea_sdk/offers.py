"""A node's signed offer: who the Earner is, on which contract, and what a product costs. Read, verified, and made a lease of.

A signature alone proves only that its key made it; that the key is the Earner's or its operator's, the Spender's own RPC endpoint says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import rfc8785

from pandacea_sdk.errors import LeaseError, NodeUnavailable, UntrustedResult, usage_error
from pandacea_sdk.node import NodeConnection, parse_object
from pandacea_sdk.protocol.contract import BadValueError, check_number, hash_product_id
from pandacea_sdk.protocol.hashing import eip191_digest, recover_address
from pandacea_sdk.protocol.ids import ADDRESS, HEX_BYTES
from pandacea_sdk.protocol.json_types import JsonMapping

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

    from pandacea_sdk.chain import LeaseChain

DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Offer:
    """A product as its Earner signed it. `price` in wei for the whole lease; `signers`: the keys that signed node and product."""

    product_id: str
    earner: str
    chain_id: int
    contract: str
    price: int
    version: str
    signers: frozenset[str]


async def fetch_offer(node: NodeConnection, product_id: str) -> Offer:
    """Fetch a product and who offers it, and verify both signatures and that the parts agree.

    Raises:
        RequestError: `product-unknown`: the node offers no such product.
        UntrustedResult: a signature does not fit, or the product contradicts itself or its version.
    """
    info = await node.fetch_info()
    product = parse_object(await node.get_public(f"/api/v1/products/{quote(product_id, safe='')}"))
    node_signer = _signer_of_node(info)
    document, version = product.get("document"), product.get("version")
    if not isinstance(document, Mapping) or not isinstance(version, str):
        raise _bad_offer("the product has no signed document")
    if version != "0x" + hashlib.sha256(_canonical(document)).hexdigest():
        raise _bad_offer("the product's version is not the hash of its document")
    product_signer = _recover(bytes.fromhex(version[2:]), product.get("signature"))
    if product_signer is None:
        raise _bad_offer("nobody signed the product's version")
    stated = document.get("price_wei")
    if document.get("product_id") != product_id or product.get("dataProductId") != hash_product_id(product_id):
        raise _bad_offer(f"the signed document is of the product {document.get('product_id')!a}, not {product_id!a}")
    if not isinstance(stated, str) or not stated.isascii() or not stated.isdecimal() or product.get("priceWei") != stated:
        raise _bad_offer(f"the list states a price of {product.get('priceWei')!a} wei, the signed document {stated!a}")
    return Offer(
        product_id,
        info["earner"],
        info["chain_id"],
        info["contract"],
        int(stated),
        version,
        frozenset({node_signer, product_signer}),
    )


async def create_lease(
    node: NodeConnection,
    rpc_url: str,
    account: LocalAccount,
    product_id: str,
    *,
    computations: int,
    days: int,
    max_price: int,
    arbiter: str | None,
    max_fee: int,
    max_tip: int | None,
) -> tuple[str, Offer]:
    """Create a lease on a product as it is offered; returns its id and the offer it was made of. See `AsyncPandaceaClient.create_lease`."""
    from pandacea_sdk.chain import ContractReverted, LeaseChain, RpcUnavailable, WrongDeployment

    try:
        check_number(days, 16, "days")
        check_number(max_price, 96, "max_price")
    except BadValueError as problem:
        raise usage_error(f"{problem}.") from None
    chain_id = await node.chain_id()  # compares the contract, where both were given
    offer = await fetch_offer(node, product_id)
    if (offer.chain_id, offer.contract) != (chain_id, node.contract):
        raise UntrustedResult(
            "bad-answer",
            f"The node serves the contract {offer.contract} on chain {offer.chain_id}, not {node.contract} on chain {chain_id}.",
        )
    if offer.price > max_price:
        raise usage_error(
            f"The product {product_id!a} costs {offer.price} wei ({offer.price / 10**18:g} of the native coin) for the whole lease, "
            f"and max_price is {max_price}: pass max_price={offer.price} to agree."
        )
    try:
        async with LeaseChain(rpc_url, offer.contract, key=account, chain_id=chain_id, max_fee=max_fee, max_tip=max_tip) as chain:
            await _check_signers(chain, offer)
            lease_id = await chain.create_lease(
                offer.earner,
                product_id,
                price=offer.price,
                max_price=offer.price,
                expires_at=await chain.now() + days * DAY_SECONDS,
                max_computations=computations,
                arbiter=arbiter,
            )
            return lease_id, offer
    except WrongDeployment as error:
        raise UntrustedResult("not-on-chain", f"No lease was made: {error}.") from error
    except ContractReverted as error:
        raise LeaseError("refused", f"No lease was made: {error}.") from error
    except RpcUnavailable as error:
        raise NodeUnavailable("unavailable", f"The chain cannot be asked: {error}.") from error


async def _check_signers(chain: LeaseChain, offer: Offer) -> None:
    """Compare who signed with the Earner and its operator, as the Spender's own endpoint names it."""
    allowed = {offer.earner, await chain.operator_of(offer.earner)}
    for signer in offer.signers:
        if signer not in allowed:
            raise UntrustedResult(
                "not-on-chain",
                f"The offer of {offer.product_id!a} is signed by {signer}, who is neither the Earner {offer.earner} nor its operator on "
                "the chain. No lease was made; if the operator was replaced, the Earner must publish the product again.",
            )


def _signer_of_node(info: JsonMapping) -> str:
    """Verify /.well-known/pandacea and return who signed it."""
    rest = {name: value for name, value in info.items() if name != "signature"}
    for name in ("earner", "contract", "signer"):
        if not isinstance(info.get(name), str) or not ADDRESS.fullmatch(info[name]):
            raise _bad_offer(f"/.well-known/pandacea states no {name}")
    if not isinstance(info.get("chain_id"), int) or isinstance(info["chain_id"], bool):
        raise _bad_offer("/.well-known/pandacea states no chain_id")
    signer = _recover(_canonical(rest), info.get("signature"))
    if signer is None or signer != info["signer"]:
        raise _bad_offer("/.well-known/pandacea is not signed by the signer it names")
    return signer


def _recover(message: bytes, signature: Any) -> str | None:
    if not isinstance(signature, str) or not HEX_BYTES.fullmatch(signature):
        return None
    return recover_address(eip191_digest(message), bytes.fromhex(signature[2:]))


def _canonical(document: JsonMapping) -> bytes:
    try:
        return rfc8785.dumps(dict(document))
    except (ValueError, TypeError, RecursionError):
        raise _bad_offer("it cannot be written as RFC 8785 JSON") from None


def _bad_offer(why: str) -> UntrustedResult:
    return UntrustedResult("bad-answer", f"The node's offer cannot be trusted: {why}. No lease was made; ask the Earner.")
