"""Our ERC-8128 against an independent implementation in JavaScript: byte for byte the same, and each accepts the other's."""

from __future__ import annotations

import json
import random
import shutil
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from pandacea_sdk.protocol.hashing import KeySigner
from pandacea_sdk.protocol.signing import RequestHead, SigningPolicy, parse_signed_request, sign_request
from tests.prerequisites import skip_or_fail

NPM = Path(__file__).parent.parent / "npm"
NOW = 1_800_000_000
CASES = 60


class Peer:
    """The JavaScript implementation as a process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def call(self, op: str, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"op": op, **command}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the peer died"
        said: dict[str, Any] = json.loads(answer)
        return said


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    node = shutil.which("node")
    if node is None or not (NPM / "node_modules" / "@slicekit" / "erc8128").is_dir():
        skip_or_fail("node and tests/npm/node_modules are needed: cd tests/npm && npm ci")
    with subprocess.Popen(
        [node, "erc8128.mjs"], cwd=NPM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        yield Peer(process)
        assert process.stdin is not None
        process.stdin.close()


def requests(seed: int) -> Iterator[dict[str, Any]]:
    """Random requests as a client could send them."""
    dice = random.Random(seed)
    letters = string.ascii_letters + string.digits + "-._~ äß%&=+,;"
    for _ in range(CASES):
        method = dice.choice(["GET", "POST", "PUT", "PATCH", "DELETE"])
        segments = ["s" + "".join(dice.choices(letters, k=dice.randint(0, 8))) for _ in range(dice.randint(1, 4))]
        target = "/" + "/".join(quote(segment, safe="") for segment in segments)
        if dice.random() < 0.5:
            target += "?" + "&".join(f"k{n}={quote(dice.choice(segments), safe='')}" for n in range(dice.randint(1, 3)))
        headers = {}
        if dice.random() < 0.5:
            headers["idempotency-key"] = f'"job-{dice.randint(0, 10**6)}"'
        if dice.random() < 0.5:
            headers["prefer"] = "respond-async, wait=10"
        body = None if method in {"GET", "DELETE"} else "".join(dice.choices(letters + '{}":', k=dice.randint(1, 200)))
        created = NOW - dice.randint(0, 100)
        yield {
            "key": "0x" + dice.randbytes(32).hex(),
            "chain_id": dice.choice([1, 31337, 131277322940537]),
            "method": method,
            "scheme": dice.choice(["http", "https"]),
            "authority": dice.choice(["localhost:8080", "earner.example", "127.0.0.1:65535", "[::1]:8080"]),
            "target": target,
            "headers": headers,
            "body": body,
            "created": created,
            "expires": created + dice.randint(101, 300),
            "nonce": "".join(dice.choices(string.ascii_letters + string.digits + "-_", k=22)),
        }


def ours(case: dict[str, Any]) -> dict[str, str]:
    return sign_request(
        KeySigner(case["key"]),
        method=case["method"],
        authority=case["authority"],
        target=case["target"],
        chain_id=case["chain_id"],
        created=case["created"],
        expires=case["expires"],
        nonce=case["nonce"],
        headers=case["headers"],
        body=None if case["body"] is None else case["body"].encode(),
    )


def url(case: dict[str, Any]) -> str:
    return f"{case['scheme']}://{case['authority']}{case['target']}"


@pytest.mark.parametrize("seed", [1, 2])
def test_both_make_the_same_bytes(peer: Peer, seed: int) -> None:
    """Content-Digest, Signature-Input and Signature are equal, header for header."""
    for case in requests(seed):
        theirs = peer.call(
            "sign",
            key=case["key"],
            chainId=case["chain_id"],
            method=case["method"],
            url=url(case),
            headers=case["headers"],
            body=case["body"],
            created=case["created"],
            expires=case["expires"],
            nonce=case["nonce"],
            components=list(case["headers"]),
        )
        for name, value in ours(case).items():
            assert theirs[name.lower()] == value, case


def test_each_accepts_the_other_and_refuses_what_was_changed(peer: Peer) -> None:
    """The peer verifies ours; with one thing changed both refuse."""
    for number, case in enumerate(requests(3)):
        signed = case["headers"] | {name.lower(): value for name, value in ours(case).items()}
        changed = number % 3
        request = dict(case)
        if changed == 1:
            request["target"] = case["target"] + "x"
        elif changed == 2:
            request["method"] = "PATCH" if case["method"] == "PUT" else "PUT" if case["body"] is not None else "OPTIONS"
        verdict = peer.call("verify", method=request["method"], url=url(request), headers=signed, body=request["body"], now=NOW)
        head = RequestHead(request["method"], request["target"], [("host", request["authority"]), *signed.items()])
        mine = parse_signed_request(head, SigningPolicy(request["chain_id"], frozenset({request["authority"]})), NOW)
        assert verdict["ok"] == mine.is_signed_by_address() == (changed == 0), case
        if verdict["ok"]:
            assert verdict["address"] == mine.address
