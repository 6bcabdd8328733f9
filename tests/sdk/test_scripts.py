"""A function is made a script by a stated rule, or refused with the name and the line before anything is sent."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pandacea.codecheck.check import ChildCodeChecker
from pandacea_sdk.client import PandaceaClient
from pandacea_sdk.errors import UsageError
from pandacea_sdk.scripts import read_code
from tests.sdk import functions_to_send as functions
from tests.sdk.conftest import LEASE, FakeNode

INS = {"features": "features", "labels": "labels"}
HERE = Path(functions.__file__)
LINES = HERE.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def client(node: FakeNode) -> Iterator[PandaceaClient]:
    with PandaceaClient(node.url, key="11" * 32) as made:
        yield made


def run_text(text: str, folder: Path, given: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run a script as the box does: its names are there before its first line, and its folder is empty."""
    prepared = f"exec(compile({text!r}, 'script.py', 'exec'), {given!r} | {{'__name__': '__main__'}})"
    return subprocess.run([sys.executable, "-c", prepared], cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_the_function_becomes_a_script_that_keeps_what_it_returns(client: PandaceaClient, tmp_path: Path) -> None:
    """Its parameters are the variables of the inputs, params and uploads; JSON is result.json."""
    text = client.source(functions.train, INS)
    done = run_text(text, tmp_path, {"features": [1, 2], "labels": [1], "params": {"lr": 0.5}})
    assert done.stderr == ""
    assert json.loads((tmp_path / "result.json").read_text()) == {"rows": [2, 1], "lr": 0.5, "uploads": []}


def test_the_text_that_is_printed_is_the_text_that_is_sent(client: PandaceaClient, node: FakeNode) -> None:
    """What is hashed and approved is what `source` shows, the same in each process."""
    job = client.submit(functions.train, LEASE, INS, params={"lr": 0.5}, uploads={"init": b"1"})
    manifest = node.jobs[job.id]["manifest"]
    text = client.source(functions.train, INS)
    assert manifest["code_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert str(ast.get_source_segment(text, ast.parse(text).body[1])) in HERE.read_text(encoding="utf-8")


async def test_the_text_passes_the_nodes_check(client: PandaceaClient) -> None:
    """It imports nothing that a node refuses, whatever libraries its environment has."""
    for text in (client.source(functions.train, INS), client.source(functions.count, {"table": "a"})):
        await ChildCodeChecker(available=frozenset({"__future__", "importlib", "json", "math", "pathlib"})).check_code(text)


def test_what_a_function_writes_itself_is_kept_too(client: PandaceaClient, tmp_path: Path) -> None:
    """None is no artifact; files in the working folder are."""
    done = run_text(client.source(functions.save, {"table": "a"}), tmp_path, {"table": [1, 2, 3]})
    assert done.stderr == ""
    assert [path.name for path in tmp_path.iterdir()] == ["model.txt"]


@pytest.mark.parametrize(
    ("body", "file"),
    [
        ("import numpy\n    return {'w': numpy.ones(3), 'b': numpy.zeros((2, 2)).T}", "result.npz"),
        ("import pandas\n    return pandas.DataFrame({'a': [1, 2]})", "result.parquet"),
        ("import numpy\n    return {'n': numpy.int64(3), 'x': [numpy.float64(0.5)], 'text': 'a'}", "result.json"),
        ("return []", "result.json"),
    ],
)
def test_arrays_tables_and_everything_else_have_their_files(tmp_path: Path, body: str, file: str) -> None:
    """The rule: a dict of arrays, a DataFrame, JSON."""
    module = tmp_path / "mine.py"
    module.write_text(f"def made(table):\n    {body}\n", encoding="utf-8")
    namespace: dict[str, Any] = {}
    exec(compile(module.read_text(), str(module), "exec"), namespace)
    out = tmp_path / "out"
    out.mkdir()
    done = run_text(read_code(namespace["made"], {"table": "a"}).text, out, {"table": []})
    assert done.stderr == ""
    kept = [path.name for path in out.iterdir()]
    assert kept in ([file], [file.replace("npz", "safetensors")])


def test_a_value_that_nothing_can_keep_is_an_error_of_the_script(tmp_path: Path) -> None:
    """Not lost in silence, and never a pickle."""
    namespace: dict[str, Any] = {}
    module = tmp_path / "mine.py"
    module.write_text("def made(table):\n    return {1, 2}\n", encoding="utf-8")
    exec(compile(module.read_text(), str(module), "exec"), namespace)
    done = run_text(read_code(namespace["made"], {"table": "a"}).text, tmp_path, {"table": []})
    assert done.returncode != 0


def test_a_line_of_the_script_is_a_line_of_the_spenders_file(client: PandaceaClient, tmp_path: Path) -> None:
    """A traceback names the own file and line; lines that were generated name none."""
    script = read_code(functions.fail, {"table": "a"})
    done = run_text(script.text, tmp_path, {"table": []})
    line = next(number for number, text in enumerate(script.text.splitlines(), 1) if "raise KeyError" in text)
    assert f'File "script.py", line {line}, in fail' in done.stderr
    assert script.locate(line) == (str(HERE), 1 + LINES.index('    raise KeyError("agee")'))
    assert script.locate(1) is None
    assert script.locate(len(script.text.splitlines())) is None


@pytest.mark.parametrize(
    ("function", "line", "why"),
    [
        (functions.closes_over(3), "    def inner(table: Any) -> Any:", "closes over rows"),
        (functions.makes_nested(), "    def nested(table: Any) -> Any:", "inside another function"),
        (functions.SentModel.fit, "    def fit(self, table: Any) -> Any:", "method"),
        (functions.uses_module, "    return json.dumps(length)", "uses json"),
        (functions.uses_constant, "        return RATE", "uses RATE"),
        (functions.wrapped, None, "decorated"),
        (functions.marked, "@plainly_decorated", "decorated"),
        (functions.yields, "    yield table", "yields"),
        (functions.waits, "async def waits(table: Any) -> Any:", "plain function"),
        (functions.with_default, "def with_default(table: Any, rate: float = 0.1) -> Any:", "default"),
        (functions.with_stars, "def with_stars(*tables: Any) -> Any:", "its parameters are the inputs"),
        (functions.with_more, "def with_more(table: Any, rate: float) -> Any:", "rate is not an input"),
        (functions.ANONYMOUS, "ANONYMOUS = lambda table: table  # noqa: E731  # what is refused", "lambda"),
    ],
)
def test_what_could_not_run_elsewhere_is_refused_with_its_line(
    client: PandaceaClient, node: FakeNode, function: Callable[..., Any], line: str | None, why: str
) -> None:
    """Before anything is sent, by name, file and line."""
    with pytest.raises(UsageError, match=why) as caught:
        client.submit(function, LEASE, {"table": "a"})
    if line is not None:
        assert caught.value.line == LINES.index(line) + 1
        assert f"{HERE}, line {caught.value.line}" in str(caught.value)
    assert node.requests == []


@pytest.mark.parametrize("given", [functions.SentModel().fit, functions.SentModel(), len])
def test_other_callables_are_refused(client: PandaceaClient, given: Any) -> None:
    """Bound methods, objects and builtins cannot be sent."""
    with pytest.raises(UsageError, match="plain function"):
        client.source(given, {"table": "a"})


def test_inputs_params_and_uploads_need_a_parameter_each(client: PandaceaClient, node: FakeNode) -> None:
    """What would be given and never seen is refused."""
    for options, name in (({"params": {"lr": 1}}, "params"), ({"uploads": {"w": b"1"}}, "uploads")):
        with pytest.raises(UsageError, match=f"no parameter {name}"):
            client.submit(functions.count, LEASE, {"table": "a"}, **options)
    with pytest.raises(UsageError, match="no parameter other"):
        client.submit(functions.count, LEASE, {"table": "a", "other": "b"})
    assert node.requests == []


def test_a_string_with_a_line_break_is_source_and_any_other_a_file(client: PandaceaClient, tmp_path: Path) -> None:
    """A stated rule; a file that is not there says so."""
    script = tmp_path / "train.py"
    script.write_text("print(2)\n", encoding="utf-8")
    assert client.source("print(1)\n", {}) == "print(1)\n"
    assert client.source(str(script), {}) == client.source(script, {}) == "print(2)\n"
    with pytest.raises(UsageError, match="cannot be read"):
        client.source("print(1)", {})
    with pytest.raises(UsageError, match="at most 102,400"):
        client.source("#" * 102_401 + "\n", {})
