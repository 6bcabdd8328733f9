"""A schema whose params have room for a program, or are longer than what the Earner is shown, behind an approval of the script."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from pandacea.domain.params_schema import MAX_FREE_BYTES, BadSchema, check_schema, count_free_bytes
from tests.jobs.conftest import Served

PROGRAM = b"features.to_csv('copy.csv')\n" * 600
LINE = {"type": "string", "maxLength": 256}


def an_object(**properties: Any) -> dict[str, Any]:
    """A schema of an object whose members are all required."""
    return {"type": "object", "properties": properties, "required": list(properties)}


@pytest.mark.parametrize(
    "schema",
    [
        an_object(lines={"type": "array", "items": LINE, "maxItems": 1000}),
        an_object(bytes={"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}, "maxItems": 20_000}),
        an_object(bits={"type": "array", "items": {"type": "boolean"}, "maxItems": 10**6}),
        an_object(words={"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 10**6}),
        an_object(nothing={"type": "array", "items": {"const": 1}, "maxItems": 10**6}),
        an_object(**{f"line{n}": LINE for n in range(60)}),
        an_object(rows={"type": "array", "maxItems": 50, "items": {"type": "array", "maxItems": 50, "items": {"type": "number"}}}),
    ],
    ids=["lines", "bytes", "bits", "words", "lengths", "members", "nested"],
)
def test_a_schema_that_a_program_fits_into_is_refused(schema: dict[str, Any]) -> None:
    """Strings, numbers, choices and lengths are counted together, however they are nested."""
    with pytest.raises(BadSchema, match="of the sender's choosing"):
        check_schema(schema)


@pytest.mark.parametrize("word", ["const", "enum"])
def test_a_schema_that_is_too_long_to_read_is_refused(word: str) -> None:
    """What is fixed may be long, but all of it is shown to the Earner."""
    text = base64.b64encode(PROGRAM).decode()
    with pytest.raises(BadSchema, match="the Earner reads all of it"):
        check_schema(an_object(program={word: text if word == "const" else [text]}))


def test_the_params_of_honest_training_fit() -> None:
    """A learning rate, epochs, a name, a choice and a few hundred weights stay within the limit."""
    schema = an_object(
        lr={"type": "number"},
        epochs={"type": "integer"},
        name={"type": "string", "maxLength": 64},
        optimizer={"enum": ["sgd", "adam"]},
        start={"type": "array", "items": {"type": "number"}, "maxItems": 400},
    )
    check_schema(schema)
    assert count_free_bytes(schema) == 8 + 8 + 64 * 3 + 1 + 400 * 8 <= MAX_FREE_BYTES


async def test_it_is_refused_when_the_script_is_handed_in(served: Served) -> None:
    """Before any Earner is asked."""
    handed = {"product_id": "p", "code": "exec(''.join(params['lines']))", "inputs": []}
    schema = an_object(lines={"type": "array", "items": LINE, "maxItems": 1000})
    answer = await served.send("POST", "/api/v1/privacy/code", handed | {"params_schema": schema})
    assert answer.code == "bad-params-schema"
