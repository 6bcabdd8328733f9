"""Signed requests: our signatures are the standard's, every bound part is bound, every fault has its own code, in order."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandacea_sdk.protocol.hashing import KeySigner
from pandacea_sdk.protocol.problems import PROBLEM_KINDS, ProtocolError
from pandacea_sdk.protocol.signing import RequestHead, SignedRequest, SigningPolicy, parse_signed_request, sign_request

VECTORS = json.loads((Path(__file__).parent / "erc8128-vectors.json").read_text(encoding="utf-8"))["vectors"]
KEY = KeySigner("01" * 32)
CHAIN, AUTHORITY, NOW = 31337, "earner.example:8080", 1_800_000_000
POLICY = SigningPolicy(CHAIN, frozenset({AUTHORITY}))
NONCE = "AAECAwQFBgcICQoLDA0ODw"
BODY = b'{"a":1}'


def signed_head(**changes: Any) -> RequestHead:
    """A good POST, or one with other parts signed."""
    parts: dict[str, Any] = {
        "method": "POST",
        "authority": AUTHORITY,
        "target": "/api/v1/privacy/execute",
        "chain_id": CHAIN,
        "created": NOW,
        "nonce": NONCE,
        "headers": {},
        "body": BODY,
    } | changes
    signer = parts.pop("signer", KEY)
    added = sign_request(signer, **parts)
    lines = [("host", parts["authority"]), *parts["headers"].items(), *added.items()]
    return RequestHead(parts["method"], parts["target"], [(name.lower(), value) for name, value in lines])


def with_header(head: RequestHead, name: str, change: Any) -> RequestHead:
    """The same request with one header changed by a function, or replaced."""
    found = [(key, change(value) if callable(change) else change) if key == name else (key, value) for key, value in head.headers]
    if name not in dict(head.headers):
        found.append((name, change))
    return replace(head, headers=found)


def refusal(head: RequestHead, now: float = NOW, policy: SigningPolicy = POLICY) -> str:
    """The code with which a head is refused."""
    with pytest.raises(ProtocolError) as caught:
        parse_signed_request(head, policy, now)
    assert caught.value.code in PROBLEM_KINDS
    return caught.value.code


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_our_signatures_are_byte_for_byte_the_published_vectors(vector: dict[str, Any]) -> None:
    """Signing the vectors' requests gives their very headers, and reading those gives their very signature base."""
    url = urlsplit(vector["url"])
    target = url.path + (f"?{url.query}" if url.query else "")
    body = vector["body_utf8"].encode() if vector["body_utf8"] is not None else None
    signer = KeySigner(vector["private_key"])
    headers = sign_request(
        signer,
        method=vector["method"],
        authority=url.netloc,
        target=target,
        chain_id=vector["chain_id"],
        created=NOW,
        nonce=NONCE,
        body=body,
    )
    assert {name.lower(): value for name, value in headers.items()} == vector["headers"]
    head = RequestHead(vector["method"], target, [("host", url.netloc), *vector["headers"].items()])
    request = parse_signed_request(head, SigningPolicy(vector["chain_id"], frozenset({url.netloc})), NOW)
    assert request.base.decode() == vector["signature_base"]
    assert request.address == vector["address"].lower()
    assert request.is_signed_by_address()


def test_a_signed_request_names_its_key_nonce_and_hash() -> None:
    """What the server keeps comes out: address, key id and nonce in lower case, expiry, the request's own hash."""
    request = parse_signed_request(signed_head(headers={"idempotency-key": '"job-1"'}), POLICY, NOW)
    assert (request.address, request.keyid) == (KEY.address, f"erc8128:{CHAIN}:{KEY.address}")
    assert (request.nonce, request.created, request.expires) == (NONCE, NOW, NOW + 60)
    assert request.idempotency_key == "job-1"
    assert len(request.request_hash) == 66
    request.check_body(BODY)


TEXT = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20)


@given(
    key=st.binary(min_size=32, max_size=32).filter(lambda raw: 0 < int.from_bytes(raw, "big") < 2**255),
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH"]),
    segments=st.lists(TEXT, min_size=1, max_size=4),
    query=st.none() | TEXT,
    body=st.none() | st.binary(max_size=200),
    prefer=st.none() | TEXT,
    chain_id=st.integers(1, 2**53),
    window=st.integers(1, 300),
)
def test_what_is_signed_is_read_back(
    key: bytes,
    method: str,
    segments: list[str],
    query: str | None,
    body: bytes | None,
    prefer: str | None,
    chain_id: int,
    window: int,
) -> None:
    """For any request of ours, sign then parse gives the signer, and the body passes."""
    signer = KeySigner(key)
    head = signed_head(
        signer=signer,
        method=method,
        target="/" + "/".join(segments) + (f"?{query}" if query is not None else ""),
        headers={"prefer": prefer} if prefer is not None else {},
        body=body,
        chain_id=chain_id,
        expires=NOW + window,
    )
    request = parse_signed_request(head, SigningPolicy(chain_id, frozenset({AUTHORITY})), NOW)
    assert request.address == signer.address
    assert request.is_signed_by_address()
    request.check_body(body or b"")


def reread(head: RequestHead) -> SignedRequest:
    return parse_signed_request(head, SigningPolicy(CHAIN, frozenset({AUTHORITY, "other.example"})), NOW)


@pytest.mark.parametrize(
    "tampered",
    [
        pytest.param(lambda head: replace(head, method="PUT"), id="method"),
        pytest.param(lambda head: replace(head, target="/api/v1/privacy/code"), id="path"),
        pytest.param(lambda head: with_header(head, "host", "other.example"), id="authority"),
        pytest.param(lambda head: with_header(head, "idempotency-key", "two"), id="idempotency-key"),
        pytest.param(lambda head: with_header(head, "prefer", "wait=1"), id="prefer"),
        pytest.param(
            lambda head: with_header(head, "content-digest", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"), id="digest"
        ),
        pytest.param(lambda head: with_header(head, "signature-input", lambda v: v.replace("00060;", "00061;")), id="expires"),
        pytest.param(lambda head: with_header(head, "signature-input", lambda v: v.replace(NONCE, NONCE[:-1] + "x")), id="nonce"),
        pytest.param(
            lambda head: with_header(head, "signature-input", lambda v: v.replace(KEY.address, "0x" + "ab" * 20)), id="keyid"
        ),
    ],
)
def test_a_changed_part_is_not_the_signers_any_more(tampered: Any) -> None:
    """Changing any bound part in flight makes the signature somebody else's."""
    head = signed_head(headers={"idempotency-key": "one", "prefer": "respond-async"})
    assert reread(head).is_signed_by_address()
    assert not reread(tampered(head)).is_signed_by_address()


@given(position=st.integers(0, 64), flip=st.integers(1, 255))
def test_a_flipped_bit_of_the_signature_never_verifies(position: int, flip: int) -> None:
    """Any other 65 bytes than the ones made do not verify: nor does the malleable twin (s in the upper half)."""
    request = parse_signed_request(signed_head(), POLICY, NOW)
    raw = bytearray(request.signature)
    raw[position] ^= flip
    assert not replace(request, signature=bytes(raw)).is_signed_by_address()
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    twin = request.signature[:32] + (order - int.from_bytes(request.signature[32:64], "big")).to_bytes(32, "big")
    assert not replace(request, signature=twin + bytes([55 - request.signature[64]])).is_signed_by_address()


def test_a_body_other_than_the_signed_one_is_refused() -> None:
    """The digest is compared with the bytes that came; a body that nothing covers is refused."""
    for head, body, code in [
        (signed_head(), b'{"a":2}', "digest-mismatch"),
        (signed_head(method="GET", body=None), b"x", "body-not-allowed"),
    ]:
        with pytest.raises(ProtocolError) as caught:
            parse_signed_request(head, POLICY, NOW).check_body(body)
        assert caught.value.code == code


BAD_INPUT = {
    "no-member": (lambda v: v.replace("eth=", "sig=", 1), "signature-malformed"),
    "two-members": (lambda v: f"{v}, {v}", "signature-malformed"),
    "no-dictionary": (lambda v: "garbage", "signature-malformed"),
    "trailing-comma": (lambda v: f"{v},", "signature-malformed"),
    "empty": (lambda v: "", "signature-malformed"),
    "spaces-in-list": (lambda v: v.replace('" "', '"  "', 1), "signature-malformed"),
    "space-after-semicolon": (lambda v: v.replace(";created", "; created"), "signature-malformed"),
    "component-parameter": (lambda v: v.replace('"@path"', '"@path";req'), "signature-malformed"),
    "created-twice": (lambda v: f"{v};created=1", "signature-malformed"),
    "leading-zero": (lambda v: v.replace("created=", "created=0"), "signature-malformed"),
    "alg": (lambda v: f'{v};alg="eip191"', "signature-parameters"),
    "tag": (lambda v: f'{v};tag="x"', "signature-parameters"),
    "no-nonce": (lambda v: v.replace(f';nonce="{NONCE}"', ""), "signature-parameters"),
    "short-nonce": (lambda v: v.replace(NONCE, "AAEC"), "signature-parameters"),
    "text-created": (lambda v: v.replace(f"created={NOW}", f'created="{NOW}"'), "signature-parameters"),
    "number-nonce": (lambda v: v.replace(f'"{NONCE}"', "12"), "signature-parameters"),
    "other-keyid": (lambda v: v.replace("erc8128:", "eip155:"), "signature-parameters"),
    "path-not-covered": (lambda v: v.replace(' "@path"', ""), "signature-coverage"),
    "digest-not-covered": (lambda v: v.replace(' "content-digest"', ""), "signature-coverage"),
    "covered-twice": (lambda v: v.replace('"@path"', '"@path" "@path"'), "signature-coverage"),
    "covers-what-is-not-sent": (lambda v: v.replace('"@path"', '"@path" "prefer"'), "signature-coverage"),
    "covers-the-unknown": (lambda v: v.replace('"@path"', '"@path" "@status"'), "signature-coverage"),
    "nothing-covered": (lambda v: "eth=()" + v[v.index(";") :], "signature-coverage"),
    "other-chain": (lambda v: v.replace("erc8128:31337", "erc8128:1"), "wrong-chain"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_each_fault_of_signature_input_has_its_code(name: str) -> None:
    """Unreadable, wrong parameters, wrong coverage and wrong chain are told apart."""
    change, code = BAD_INPUT[name]
    assert refusal(with_header(signed_head(), "signature-input", change)) == code


BAD_SIGNATURE = {
    "no-member": (lambda v: v.replace("eth=", "sig="), "signature-malformed"),
    "two-members": (lambda v: f"{v}, {v}", "signature-malformed"),
    "no-bytes": (lambda v: "eth=::", "signature-malformed"),
    "a-string": (lambda v: 'eth="abc"', "signature-malformed"),
    "no-base64": (lambda v: "eth=:a===:", "signature-malformed"),
    "too-long": (lambda v: f"eth=:{'AAAA' * 400}:", "signature-malformed"),
}


@pytest.mark.parametrize("name", BAD_SIGNATURE)
def test_each_fault_of_signature_has_its_code(name: str) -> None:
    """The signature must be one byte sequence of a sane length."""
    change, code = BAD_SIGNATURE[name]
    assert refusal(with_header(signed_head(), "signature", change)) == code


def test_other_labels_are_stepped_over() -> None:
    """A proxy's own signature beside ours changes nothing, whatever strings it holds."""
    head = signed_head()
    noise = 'proxy=("@method" "x-a,b");created=1;alg="hmac-sha256";keyid="a\\",b=c"'
    head = with_header(head, "signature-input", lambda v: f"{noise}, {v}")
    head = with_header(head, "signature", lambda v: f"proxy=:AAAA:,\t{v}")
    assert parse_signed_request(head, POLICY, NOW).is_signed_by_address()


def test_fields_in_several_lines_are_one_field() -> None:
    """RFC 9421 joins header lines with a comma: so does the reader."""
    head = signed_head()
    lines = [("signature-input", "proxy=();created=1"), ("signature", "proxy=:AAAA:"), *head.headers]
    assert parse_signed_request(replace(head, headers=lines), POLICY, NOW).is_signed_by_address()


def test_an_unsigned_request_is_told_to_sign() -> None:
    """Either field missing is `signature-missing`."""
    head = signed_head()
    for name in ("signature", "signature-input"):
        kept = [(key, value) for key, value in head.headers if key != name]
        assert refusal(replace(head, headers=kept)) == "signature-missing"


@pytest.mark.parametrize(
    ("created", "expires", "now", "code"),
    [
        (NOW, NOW + 301, NOW, "signature-window"),
        (NOW, NOW, NOW, "signature-window"),
        (NOW, NOW - 1, NOW, "signature-window"),
        (NOW + 31, NOW + 60, NOW, "signature-not-yet-valid"),
        (NOW - 300, NOW - 31, NOW, "signature-expired"),
        (NOW, NOW + 300, NOW + 331, "signature-expired"),
    ],
)
def test_time_is_bounded(created: int, expires: int, now: int, code: str) -> None:
    """At most 300 s of validity, 30 s of skew on either side."""
    assert refusal(signed_head(created=created, expires=expires), now) == code


@pytest.mark.parametrize(("created", "expires"), [(NOW + 30, NOW + 60), (NOW - 300, NOW - 30), (NOW, NOW + 300)])
def test_time_within_bounds_passes(created: int, expires: int) -> None:
    """The very edges still pass."""
    assert parse_signed_request(signed_head(created=created, expires=expires), POLICY, NOW).is_signed_by_address()


def test_a_request_for_another_server_is_refused() -> None:
    """The authority must be a configured one: the Host header alone proves nothing."""
    assert refusal(signed_head(authority="evil.example")) == "wrong-authority"
    assert refusal(replace(signed_head(), headers=[*signed_head().headers, ("host", AUTHORITY)])) == "bad-host"


def test_every_body_method_needs_a_digest() -> None:
    """POST, PUT and PATCH without Content-Digest are refused even with an empty body; a digest must be one sha-256."""
    for method in ("POST", "PUT", "PATCH"):
        head = signed_head(method=method)
        kept = [(key, value) for key, value in head.headers if key != "content-digest"]
        head = with_header(replace(head, headers=kept), "signature-input", lambda v: v.replace(' "content-digest"', ""))
        assert refusal(head) == "digest-missing"
    for value in ("md5=:AAAA:", "sha-256=:AAAA:", f"{'sha-256=:' + 'A' * 42}B=:", ""):
        assert refusal(with_header(signed_head(), "content-digest", value)) in {"digest-malformed", "bad-parameter"}


def test_compressed_bodies_and_odd_targets_are_refused_last() -> None:
    """Path and encoding come after chain, time and authority, before body and curve."""
    assert refusal(with_header(signed_head(), "content-encoding", "gzip")) == "content-encoding-refused"
    odd = replace(signed_head(), target="/api/../execute")
    assert refusal(odd) == "bad-target"
    assert refusal(odd, now=NOW + 1000) == "signature-expired"
    assert refusal(with_header(odd, "signature-input", lambda v: v.replace("31337", "1")), now=NOW + 1000) == "wrong-chain"


def test_headers_of_other_characters_are_refused_not_crashed_on() -> None:
    """Bytes beyond ASCII in a signed header are a 400, never an exception of Python's."""
    assert refusal(with_header(signed_head(), "prefer", "\udcff")) == "bad-parameter"
    assert refusal(with_header(signed_head(), "host", "ä.example")) == "bad-parameter"


def test_an_idempotency_key_is_a_short_plain_word() -> None:
    """Letters, digits and a few signs, at most 128."""
    assert refusal(signed_head(headers={"idempotency-key": "a b"})) == "bad-idempotency-key"
    assert refusal(signed_head(headers={"idempotency-key": "a" * 129})) == "bad-idempotency-key"


@given(st.text(max_size=300), st.text(max_size=100))
def test_garbage_is_refused_never_crashed_on(inputs: str, signature: str) -> None:
    """Any text in the two fields gives a ProtocolError with a known code."""
    head = RequestHead("GET", "/x", [("host", AUTHORITY), ("signature-input", inputs), ("signature", signature)])
    assert refusal(head) in {"signature-malformed", "signature-parameters", "signature-coverage"}


@given(st.text('eth=()"@pathmod;credxsnoky01:,. \\', max_size=400))
def test_near_garbage_is_refused_never_crashed_on(inputs: str) -> None:
    """Text of the right letters is refused as well."""
    head = RequestHead("GET", "/x", [("host", AUTHORITY), ("signature-input", inputs), ("signature", "eth=:AAAA:")])
    assert refusal(head).startswith("signature-")


def test_a_key_is_never_shown() -> None:
    """Neither the signer's representation nor the error about a bad key repeats it."""
    assert "0101" not in repr(KEY)
    with pytest.raises(ValueError, match="not a private key") as caught:
        KeySigner("deadbeef" * 9)
    assert "deadbeef" not in str(caught.value)
    assert caught.value.__cause__ is None
