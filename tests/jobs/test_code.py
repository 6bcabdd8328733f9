"""Approved code: the script, its inputs, its uploads and its params together, or not at all."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from pandacea.domain.code_approval import CodeState
from pandacea.domain.product import Policy
from pandacea.flows.approve_code import MAX_WAITING_PER_ADDRESS, decide_code
from pandacea_sdk.protocol.hashing import KeySigner
from tests.jobs.conftest import EXECUTE, OTHER, SPENDER, JobAnswer, Served

CODE = "/api/v1/privacy/code"
SCRIPT = "print(table.x.sum() * params['factor'])\n"
INPUTS = [{"asset_id": "a", "variable_name": "table"}]
SCHEMA = {"type": "object", "properties": {"factor": {"type": "number", "minimum": 0, "maximum": 10}}, "required": ["factor"]}


async def submit_code(served: Served, signer: KeySigner = OTHER, **members: Any) -> JobAnswer:
    body = {"product_id": "p", "code": SCRIPT, "inputs": INPUTS, "params_schema": SCHEMA, **members}
    return await served.send("POST", CODE, body, signer=signer)


async def run(served: Served, **members: Any) -> JobAnswer:
    body = {**served.body(SCRIPT), "inputs": INPUTS, "params": {"factor": 2}, **members}
    return await served.send("POST", EXECUTE, body, Prefer="respond-async")


@pytest.fixture
def strict(served: Served) -> Served:
    """A product that runs approved code only: the default of every product."""
    served.rules(policy=Policy.APPROVED_CODE)
    return served


async def test_a_script_is_handed_in_looked_at_and_runs(strict: Served) -> None:
    """Before paying, by anyone; the manifest will name the approval."""
    answer = await submit_code(strict)
    assert (answer.status, answer.json["status"]) == (202, "pending")
    assert (await run(strict)).code == "code-not-approved"
    await decide_code(answer.json["code_id"], CodeState.APPROVED, "", strict.world.submit.database, strict.clock)
    assert (await strict.send("GET", answer.headers["location"], signer=OTHER)).json["status"] == "approved"
    accepted = await run(strict)
    assert accepted.status == 202
    row = await strict.row(accepted.json["computation_id"])
    assert row.policy_decision == f"approved-code: {answer.json['code_id']}"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"params": {"factor": 11}}, "params/factor must be 10 or less"),
        ({"params": {"factor": 1, "f": "import os"}}, "takes only: factor"),
        ({"params": {}}, "params/factor is missing"),
        ({"inputs": [{"asset_id": "b", "variable_name": "table"}]}, "for other inputs"),
        ({"inputs": [{"asset_id": "a", "variable_name": "other"}]}, "for other inputs"),
        ({"code": SCRIPT + "#"}, "runs only scripts"),
    ],
)
async def test_an_approval_covers_exactly_what_was_read(strict: Served, changed: dict[str, Any], said: str) -> None:
    """Another byte of code, another input, another name, params beyond the schema: not approved."""
    answer = await submit_code(strict)
    await decide_code(answer.json["code_id"], CodeState.APPROVED, "", strict.world.submit.database, strict.clock)
    refused = await run(strict, **changed)
    assert refused.code == "code-not-approved"
    assert said in refused.json["detail"]


async def test_uploads_are_part_of_what_is_approved(strict: Served) -> None:
    """Their bytes are another's: a script approved without uploads gets none."""
    await strict.send("PUT", f"/api/v1/privacy/uploads/{hashlib.sha256(b'w').hexdigest()}", b"w")
    named = {"weights": hashlib.sha256(b"w").hexdigest()}
    plain = await submit_code(strict)
    await decide_code(plain.json["code_id"], CodeState.APPROVED, "", strict.world.submit.database, strict.clock)
    assert (await run(strict, uploads=named)).code == "code-not-approved"
    with_upload = await submit_code(strict, uploads=["weights"])
    await decide_code(with_upload.json["code_id"], CodeState.APPROVED, "", strict.world.submit.database, strict.clock)
    assert (await run(strict, uploads=named)).status == 202


async def test_a_refusal_says_why(strict: Served) -> None:
    """To whoever handed it in, and to whoever tries to run it; made printable."""
    answer = await submit_code(strict)
    await decide_code(answer.json["code_id"], CodeState.REJECTED, "prints rows \u202e", strict.world.submit.database, strict.clock)
    state = await strict.send("GET", answer.headers["location"], signer=OTHER)
    assert (state.json["status"], state.json["reason"]) == ("rejected", "prints rows \\u202e")
    refused = await run(strict)
    assert (refused.status, refused.code) == (403, "code-refused")
    assert "prints rows" in refused.json["detail"]


async def test_an_approval_can_be_taken_back(strict: Served) -> None:
    """What is submitted from then on is refused."""
    answer = await submit_code(strict)
    for state in (CodeState.APPROVED, CodeState.REJECTED):
        await decide_code(answer.json["code_id"], state, "", strict.world.submit.database, strict.clock)
    assert (await run(strict)).code == "code-refused"


async def test_the_same_script_is_the_same_submission(strict: Served) -> None:
    """Whoever hands it in; the order of keys and inputs changes nothing."""
    first = await submit_code(strict)
    second = await submit_code(strict, signer=KeySigner("53" * 32), params_schema=dict(reversed(SCHEMA.items())))
    assert first.json["code_id"] == second.json["code_id"]
    assert (await submit_code(strict, params_schema={"type": "object"})).json["code_id"] != first.json["code_id"]


async def test_submissions_are_bounded(strict: Served) -> None:
    """A Spender may have a few waiting; deciding makes room. Whoever has no lease may hand in as many from one address, and no more."""
    for number in range(MAX_WAITING_PER_ADDRESS):
        last = await submit_code(strict, SPENDER, code=f"print({number})")
        assert last.status == 202
    assert (await submit_code(strict, SPENDER, code="print('more')")).code == "too-many-submissions"
    await decide_code(last.json["code_id"], CodeState.REJECTED, "", strict.world.submit.database, strict.clock)
    assert (await submit_code(strict, SPENDER, code="print('more')")).status == 202
    strangers = [
        await submit_code(strict, KeySigner(f"{key:064x}"), code=f"print({key})") for key in range(1, MAX_WAITING_PER_ADDRESS + 2)
    ]
    assert [answer.status for answer in strangers] == [202] * MAX_WAITING_PER_ADDRESS + [429]


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"product_id": "none"}, "product-unknown"),
        ({"product_id": "../x"}, "bad-product-id"),
        ({"inputs": [{"asset_id": "c", "variable_name": "t"}]}, "asset-outside-product"),
        ({"inputs": [{"asset_id": "a", "variable_name": "params"}]}, "reserved-variable-name"),
        ({"code": " "}, "code-empty"),
        ({"code": "x" * 102_401}, "code-too-large"),
        ({"params_schema": []}, "wrong-type"),
        ({"params_schema": {"type": "string"}}, "bad-params-schema"),
        ({"params_schema": {"type": "object", "additionalProperties": True}}, "bad-params-schema"),
        ({"params_schema": {"$ref": "#"}}, "bad-params-schema"),
        ({"uploads": ["../x"]}, "bad-upload"),
        ({"uploads": ["a", "a"]}, "bad-upload"),
        ({"more": 1}, "unknown-field"),
        ({"note": "n" * 1001}, "note-too-long"),
    ],
)
async def test_a_submission_that_cannot_be_approved_says_why(strict: Served, members: dict[str, Any], code: str) -> None:
    """Each fault its own code; nothing is kept."""
    assert (await submit_code(strict, **members)).code == code
    async with strict.world.submit.database.read_session() as session:
        assert await session.code.count_pending() == 0


async def test_an_unknown_script_has_no_state(strict: Served) -> None:
    """404, whatever the path holds."""
    for code_id in ("0x" + "0" * 64, "x"):
        assert (await strict.send("GET", f"{CODE}/{code_id}", signer=OTHER)).code == "code-unknown"
