"""ERC-8128: HTTP requests signed with an Ethereum key (RFC 9421 message signatures over EIP-191 personal_sign).

What the draft may still change is in this module and in `signature_fields`. The steps of a server:

1. `parse_signed_request` checks what needs neither the body nor a database nor a curve, in a fixed order, cheap checks first;
2. the server looks up whether the address is known;
3. `SignedRequest.is_signed_by_address` recovers the signer;
4. `SignedRequest.check_body` compares the body with the signed digest;
5. the server makes sure that the nonce is new.

`sign_request` makes the headers on the client's side.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from pandacea_sdk.protocol.digest import check_digest, content_digest, parse_content_digest
from pandacea_sdk.protocol.hashing import Signer, eip191_digest, hex32, recover_address
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.signature_fields import dictionary_member, join_names, malformed_signature, parse_signature_input
from pandacea_sdk.protocol.targets import split_target

SIGNATURE_LABEL: Final = "eth"
MAX_WINDOW_SECONDS: Final = 300
"""Longest time from `created` to `expires` that a server accepts."""
CLOCK_SKEW_SECONDS: Final = 30
"""By which the clocks of both sides may differ."""
SDK_WINDOW_SECONDS: Final = 60
"""From `created` to `expires` in what this SDK signs."""
MAX_SIGNATURE_BYTES: Final = 1024
"""Larger than any ERC-1271 signature seen in use; servers limit a header to about 8 KB."""

ACCEPT_SIGNATURE: Final = f'{SIGNATURE_LABEL}=("@authority" "@method" "@path" "content-digest");created;expires;nonce;keyid'
"""Value of the Accept-Signature field (RFC 9421, section 5.1) of a 401."""

BODY_METHODS: Final = frozenset({"POST", "PUT", "PATCH"})
_SIGNED_WHEN_SENT: Final = ("content-digest", "idempotency-key", "prefer")
_PARAMETERS: Final = frozenset({"created", "expires", "nonce", "keyid"})

_KEYID: Final = re.compile(r"erc8128:([1-9][0-9]{0,77}):(0x[0-9a-fA-F]{40})")
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{22,64}")
_BYTES: Final = re.compile(r":([A-Za-z0-9+/=]+):")
_VISIBLE: Final = re.compile(r"[\x20-\x7e]+")
IDEMPOTENCY_KEY: Final = re.compile(r'[A-Za-z0-9_.:-]{1,128}|"[A-Za-z0-9_.:-]{1,128}"')


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request without its body. `target` is the raw request target; `headers` has one entry for each line, names in lower case."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    _fields: dict[str, list[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index the lines by name once: reading a signature looks up many names."""
        fields: dict[str, list[str]] = {}
        for name, value in self.headers:
            fields.setdefault(name, []).append(value.strip(" \t"))
        object.__setattr__(self, "_fields", fields)

    def header_values(self, name: str) -> list[str]:
        """List the values of all lines of one header, trimmed."""
        return self._fields.get(name, [])

    def joined_header(self, name: str) -> str | None:
        """Join the lines of one header into one value (RFC 9421, section 2.1); None when the header is absent."""
        values = self._fields.get(name)
        if values is None:
            return None
        return values[0] if len(values) == 1 else ", ".join(values)


@dataclass(frozen=True, slots=True)
class SigningPolicy:
    """What a server requires of a signature. Times are in seconds; authorities are lower-case, without a default port."""

    chain_id: int
    authorities: frozenset[str]
    max_window: int = MAX_WINDOW_SECONDS
    skew: int = CLOCK_SKEW_SECONDS


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request whose signature was parsed and not yet verified: until `is_signed_by_address` is true, `address` is only a claim."""

    address: str
    keyid: str
    nonce: str
    created: int
    expires: int
    base: bytes
    signature: bytes
    body_sha256: bytes | None
    idempotency_key: str | None

    @property
    def digest(self) -> bytes:
        """The 32 bytes that were signed."""
        return eip191_digest(self.base)

    @property
    def request_hash(self) -> str:
        """sha-256 of the signature base, as bytes32 in hex: it names this request in the manifest and in the computation id."""
        return hex32(sha256(self.base).digest())

    def check_body(self, body: bytes) -> None:
        """Compare the body with the signed digest.

        Raises:
            ProtocolError: `digest-mismatch`; `body-not-allowed` for a body that no digest covers.
        """
        if self.body_sha256 is not None:
            check_digest(self.body_sha256, sha256(body).digest())
        elif body:
            raise ProtocolError("body-not-allowed", "This request carries a body that its signature does not cover; send none.")

    def is_signed_by_address(self) -> bool:
        """Tell whether the named address's key made the signature. A contract wallet has none: ask it (ERC-1271) before refusing."""
        return recover_address(self.digest, self.signature) == self.address


def sign_request(
    signer: Signer,
    *,
    method: str,
    authority: str,
    target: str,
    chain_id: int,
    created: int,
    nonce: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    expires: int | None = None,
) -> dict[str, str]:
    """Sign a request; returns the headers to add: Content-Digest (when there is a body), Signature-Input and Signature.

    `authority` is host[:port] in lower case without the scheme's default port; `target` the raw path and query that will be sent;
    `headers` those that will be sent (idempotency-key and prefer among them are signed); `nonce` base64url of 16 random bytes.

    Raises:
        ProtocolError: `bad-target` when the target is not in its plain form.
    """
    added: dict[str, str] = {}
    sent = {name.lower(): value for name, value in (headers or {}).items() if name.lower() != "host"}
    if body is not None or method in BODY_METHODS:
        sent["content-digest"] = added["Content-Digest"] = content_digest(body or b"")
    head = RequestHead(method, target, [("host", authority), *sent.items()])
    components = _components(head, *split_target(target))
    names = " ".join(f'"{name}"' for name, _ in components)
    parameters = (
        f"({names});created={created};expires={created + SDK_WINDOW_SECONDS if expires is None else expires}"
        f';nonce="{nonce}";keyid="erc8128:{chain_id}:{signer.address.lower()}"'
    )
    signature = signer.sign_digest(eip191_digest(_base(components, parameters)))
    added["Signature-Input"] = f"{SIGNATURE_LABEL}={parameters}"
    added["Signature"] = f"{SIGNATURE_LABEL}=:{base64.b64encode(signature).decode()}:"
    return added


def parse_signed_request(head: RequestHead, policy: SigningPolicy, now: float) -> SignedRequest:
    """Parse a signature and check it, except for its body, signer and nonce. `now`: Unix seconds.

    Raises:
        ProtocolError: the first of, in this order: signature-missing, -malformed, -parameters, -coverage; wrong-chain;
            digest-missing, digest-malformed; signature-window, -not-yet-valid, -expired; wrong-authority; bad-target;
            content-encoding-refused; bad-idempotency-key. With the coverage may come bad-host and bad-parameter: the
            components could not be formed.
    """
    inner, signature = _read_fields(head)
    names, parameters = parse_signature_input(inner)
    if parameters.keys() != _PARAMETERS:
        raise ProtocolError(
            "signature-parameters",
            "The signature must have exactly the parameters created, expires, nonce and keyid; "
            f"missing: {join_names(_PARAMETERS - parameters.keys())}; not taken: {join_names(parameters.keys() - _PARAMETERS)}.",
        )
    created, expires = _times(parameters)
    nonce, (chain_id, address) = _nonce(parameters), _keyid(parameters)
    path, _, query = head.target.partition("?")
    components = _components(head, path, query if "?" in head.target else None)
    covered = dict(components)
    _check_coverage(names, covered)
    if chain_id != policy.chain_id:
        raise ProtocolError("wrong-chain", f"The key is named on chain {chain_id}; this node serves chain {policy.chain_id}.")
    body_sha256 = _body_digest(head)
    _check_times(created, expires, policy, now)
    if covered["@authority"] not in policy.authorities:
        raise ProtocolError(
            "wrong-authority",
            "The signed authority is not one of this node's; sign for its public address, and let proxies keep the Host header.",
        )
    split_target(head.target)
    check_content_encoding(head)
    idempotency_key = covered.get("idempotency-key")
    if idempotency_key is not None and not IDEMPOTENCY_KEY.fullmatch(idempotency_key):
        raise ProtocolError("bad-idempotency-key", "Idempotency-Key must be 1 to 128 letters, digits or one of _ . : -")
    return SignedRequest(
        address=address,
        keyid=f"erc8128:{chain_id}:{address}",
        nonce=nonce,
        created=created,
        expires=expires,
        base=_base([(name, covered[name]) for name in names], inner),
        signature=signature,
        body_sha256=body_sha256,
        idempotency_key=idempotency_key.strip('"') if idempotency_key is not None else None,
    )


def check_content_encoding(head: RequestHead) -> None:
    """Refuse a compressed body: a limit on its bytes must also limit what it decompresses to.

    Raises:
        ProtocolError: `content-encoding-refused`.
    """
    if any(value.lower() != "identity" for value in head.header_values("content-encoding")):
        raise ProtocolError("content-encoding-refused", "Send the body as it is, without Content-Encoding.")


def _components(head: RequestHead, path: str, query: str | None) -> list[tuple[str, str]]:
    """List what a signature of this request must cover, in the order in which the SDK signs it."""
    hosts = head.header_values("host")
    if len(hosts) != 1 or not hosts[0]:
        raise ProtocolError("bad-host", "Send exactly one Host header.")
    found = [("@authority", hosts[0].lower()), ("@method", head.method), ("@path", path)]
    if query is not None:
        found.append(("@query", "?" + query))
    for name in _SIGNED_WHEN_SENT:
        value = head.joined_header(name)
        if value is not None:
            found.append((name, value))
    values = [value for _, value in found]
    if all(values) and _VISIBLE.fullmatch("".join(values)):  # all at once; the loop below names the one at fault
        return found
    for name, value in found:
        if not _VISIBLE.fullmatch(value):
            raise ProtocolError("bad-parameter", f"{name} may hold printable ASCII only.")
    return found


def _base(components: Iterable[tuple[str, str]], parameters: str) -> bytes:
    """Write the signature base (RFC 9421, section 2.5)."""
    lines = [f'"{name}": {value}' for name, value in components]
    return "\n".join([*lines, f'"@signature-params": {parameters}']).encode()


def _read_fields(head: RequestHead) -> tuple[str, bytes]:
    inputs, signatures = head.joined_header("signature-input"), head.joined_header("signature")
    if inputs is None or signatures is None:
        raise ProtocolError("signature-missing", "Sign the request: Signature-Input and Signature are needed (ERC-8128).")
    encoded = dictionary_member(signatures, SIGNATURE_LABEL, "Signature")
    match = _BYTES.fullmatch(encoded)
    try:
        signature = base64.b64decode(match[1], validate=True) if match else b""
    except binascii.Error:
        signature = b""
    if not 0 < len(signature) <= MAX_SIGNATURE_BYTES:
        raise malformed_signature(f"the eth member of Signature must be :base64: of 1 to {MAX_SIGNATURE_BYTES} bytes")
    return dictionary_member(inputs, SIGNATURE_LABEL, "Signature-Input"), signature


def _times(parameters: Mapping[str, int | str]) -> tuple[int, int]:
    created, expires = parameters["created"], parameters["expires"]
    if not isinstance(created, int) or not isinstance(expires, int):
        raise ProtocolError("signature-parameters", "created and expires must be integers: Unix seconds.")
    return created, expires


def _nonce(parameters: Mapping[str, int | str]) -> str:
    nonce = parameters["nonce"]
    if not isinstance(nonce, str) or not _NONCE.fullmatch(nonce):
        raise ProtocolError("signature-parameters", "nonce must be base64url of 16 random bytes or more, without padding.")
    return nonce


def _keyid(parameters: Mapping[str, int | str]) -> tuple[int, str]:
    keyid = parameters["keyid"]
    match = _KEYID.fullmatch(keyid) if isinstance(keyid, str) else None
    if match is None:
        raise ProtocolError("signature-parameters", 'keyid must be "erc8128:<chain id>:<0x address>".')
    return int(match[1]), match[2].lower()


def _check_coverage(names: Sequence[str], components: Mapping[str, str]) -> None:
    missing, extra = components.keys() - set(names), set(names) - components.keys()
    if missing or extra or len(names) != len(set(names)):
        raise ProtocolError(
            "signature-coverage",
            "The signature must cover exactly what it must, once each; "
            f"missing: {join_names(missing)}; not taken or not sent: {join_names(extra)}.",
        )


def _body_digest(head: RequestHead) -> bytes | None:
    value = head.joined_header("content-digest")
    if value is not None:
        return parse_content_digest(value)
    if head.method in BODY_METHODS:
        raise ProtocolError("digest-missing", f"Every {head.method} needs a Content-Digest, also over an empty body.")
    return None


def _check_times(created: int, expires: int, policy: SigningPolicy, now: float) -> None:
    window = expires - created
    if not 0 < window <= policy.max_window:
        raise ProtocolError("signature-window", f"expires - created must be 1 to {policy.max_window} s, it is {window}.")
    if created > now + policy.skew:
        raise ProtocolError(
            "signature-not-yet-valid", f"The signature was made {created - now:.0f} s in the future; set your clock."
        )
    if expires < now - policy.skew:
        raise ProtocolError("signature-expired", f"The signature expired {now - expires:.0f} s ago; sign the request again.")
