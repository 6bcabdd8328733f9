"""What the Earner is told to look at, and that what is shown is what runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandacea.domain.code_review import escape_hidden, review_code


def lines(code: str) -> dict[int, str]:
    return {one.line: one.reason for one in review_code(code)}


@pytest.mark.parametrize(
    "code",
    [
        "exec(params['f'])",
        "f = params['f']\ng = f.strip()\neval(g)",
        "import pickle\npickle.loads(bytes.fromhex(params['f']))",
        "getattr(table, params['method'])()",
        "for name in params['names']:\n    getattr(table, name)()",
        "source = open('/workspace/in/code').read()\nexec(source)",
        "with open('/workspace/in/w', 'rb') as file:\n    import torch\n    torch.load(file)",
        "(text := params['x'])\ncompile(text, 'x', 'exec')",
    ],
)
def test_another_program_coming_in_is_named(code: str) -> None:
    """`params` and uploads defeat an approved hash: exec, eval, pickle, getattr on what comes from them."""
    assert any("another program" in why for why in lines(code).values())


def test_weights_loaded_as_weights_are_no_pickle() -> None:
    """torch.load with weights_only runs nothing."""
    code = "import torch\nstate = torch.load('/workspace/in/w', weights_only=True)"
    assert all("unpickle" not in why for why in lines(code).values())


def test_roundabout_ways_are_named() -> None:
    """Not a proof, a help: the usual tricks."""
    assert 1 in lines("().__class__.__base__")
    assert 1 in lines("import ctypes")
    assert 1 in lines("__import__('os')")
    assert 2 in lines("x = 1\nimport marshal")
    assert 1 in lines("x = 1" + " " * 500 + "; exec('1')")


def test_an_ordinary_script_is_not_nagged_about() -> None:
    """Warnings that nobody reads warn of nothing."""
    code = "import torch\nmodel = torch.nn.Linear(2, 1)\nfor _ in range(params['epochs']):\n    pass\n"
    code += "torch.save(model.state_dict(), 'w.pt')\n"
    assert review_code(code) == []


def test_what_hides_is_shown_as_escapes() -> None:
    """Bidirectional controls, zero-width characters, letters that look like others, control characters."""
    code = "a\u202eb\u200bc\u0430d\x1b[2Jе = 1\r\n"
    shown = escape_hidden(code)
    assert shown == "a\\u202eb\\u200bc\\u0430d\\x1b[2J\\u0435 = 1\n"
    assert 1 in lines(code)


@given(st.text())
def test_nothing_but_plain_ascii_is_shown(code: str) -> None:
    """Whatever a script holds, the terminal gets printable ASCII and line ends."""
    assert all(character == "\n" or " " <= character <= "~" for character in escape_hidden(code))


@given(st.text())
def test_any_text_can_be_reviewed(code: str) -> None:
    """A script that cannot be parsed is a warning, not an error."""
    review_code(code)


NAMES = st.sampled_from(["params", "a", "b", "c", "d"])
ASSIGNMENTS = st.lists(st.tuples(NAMES, NAMES), max_size=12)


@given(ASSIGNMENTS, NAMES)
def test_what_comes_from_params_is_followed_through_any_order_of_assignments(steps: list[tuple[str, str]], asked: str) -> None:
    """A name is followed when a chain of assignments leads from params to it, wherever in the script the links stand."""
    reached = {"params"}
    for _ in steps:
        reached |= {target for target, source in steps if source in reached}
    code = "".join(f"{target} = {source}\n" for target, source in steps) + f"exec({asked})\n"
    why = lines(code)[len(steps) + 1]
    assert ("comes from params" in why) == (asked in reached)
