"""What a script gets, what comes back, and how its end is told; the same on every backend and in every mode."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pandacea.domain.outcome import Failure
from pandacea.flows.ports import CodeStarted, OutputWritten, ProgressReported
from tests.sandbox.harness import Laboratory, joined_output, with_caps, write_converted_table

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_output_and_artifacts_come_back(laboratory: Laboratory) -> None:
    """What a script prints is its output; what it leaves in its folder are its artifacts, byte for byte."""
    outcome = await laboratory.run(
        "print('hi')\nimport os\nos.mkdir('out')\nopen('out/a.bin', 'wb').write(bytes(range(256)) * 1000)\n"
    )
    assert outcome.failure is None, outcome
    assert outcome.output == b"hi\n"
    assert [artifact.name for artifact in outcome.artifacts] == ["out/a.bin"]
    content = outcome.artifacts[0].path.read_bytes()
    assert content == bytes(range(256)) * 1000
    assert outcome.artifacts[0].sha256 == hashlib.sha256(content).hexdigest()
    assert outcome.code_started
    assert outcome.exit_status == 0


async def test_tables_arrive_under_their_names(laboratory: Laboratory, people: Path) -> None:
    """Each input is a DataFrame under its variable name, and `params` is the request's JSON."""
    code = "print(people.shape, list(people.columns), people.age.sum() + params['add'])"
    outcome = await laboratory.run(code, tables={"people": people}, params=json.dumps({"add": 1}))
    expected = sum(20 + n % 50 for n in range(300)) + 1
    assert outcome.output.decode().strip() == f"(300, 3) ['age', 'height', 'group'] {expected}"


@pytest.mark.parametrize("suffix", ["csv", "arrow"])
async def test_reading_a_table_leaves_no_mark_on_it(laboratory: Laboratory, people: Path, environment: Path, suffix: str) -> None:
    """Its access time stays, so that a job cannot tell by it whether another read the table."""
    path = people if suffix == "csv" else write_converted_table(people, environment, suffix)
    os.utime(path, (1, 2))  # long ago and before the last change: even a sparing mount (relatime) would move it now
    before = path.stat().st_atime_ns
    outcome = await laboratory.run("print(int(t.age.sum()))", tables={"t": path})
    assert outcome.failure is None, outcome
    assert path.stat().st_atime_ns == before


async def test_print_streams_while_the_script_runs(laboratory: Laboratory) -> None:
    """Lines are told before the script has ended, and progress in numbers with them."""
    code = "print('one')\npandacea_progress(1, 2)\nimport time\ntime.sleep(0.3)\nprint('two')\npandacea_progress(2, 2)\n"
    outcome = await laboratory.run(code)
    assert outcome.failure is None, outcome
    assert isinstance(laboratory.events[0], CodeStarted)
    written = [event.data for event in laboratory.events if isinstance(event, OutputWritten)]
    assert written[0] == b"one\n"
    assert joined_output(laboratory.events) == b"one\ntwo\n"
    assert [event for event in laboratory.events if isinstance(event, ProgressReported)] == [
        ProgressReported(1, 2),
        ProgressReported(2, 2),
    ]


async def test_a_scripts_exception_is_told_by_class_line_and_message(laboratory: Laboratory) -> None:
    """The error names the script's own line, the traceback shows no frame of ours, and artifacts so far are kept."""
    outcome = await laboratory.run("open('kept.txt', 'w').write('x')\n\ndef f():\n    raise KeyError('no such column')\n\nf()\n")
    assert outcome.failure is Failure.SCRIPT_ERROR
    assert outcome.script_error is not None
    assert (outcome.script_error.type, outcome.script_error.line) == ("KeyError", 4)
    assert "no such column" in outcome.script_error.message
    assert b"guest" not in outcome.output
    assert b"raise KeyError" in outcome.output
    assert [artifact.name for artifact in outcome.artifacts] == ["kept.txt"]


@pytest.mark.parametrize(
    "code",
    [
        "raise ValueError('Ada')",
        "raise SystemExit('Ada')",
        "import threading\nthread = threading.Thread(target=lambda: int('Ada'))\nthread.start()\nthread.join()",
        "class Odd:\n    def __del__(self):\n        raise ValueError('Ada')\nOdd()",
        "import warnings\nwarnings.warn('Ada')",
        "import atexit\natexit.register(lambda: int('Ada'))",
        "open('/dev/stderr', 'w').write('Ada')",
    ],
)
async def test_where_messages_stay_nothing_of_stderr_leaves(laboratory: Laboratory, code: str) -> None:
    """Tracebacks, warnings, exit messages: whatever the interpreter says of a row goes nowhere; stdout is the output."""
    job = laboratory.job("print('seen', flush=True)\n" + code)
    await laboratory.wait_until_warm()
    outcome = await laboratory.sandbox.run_job(replace(job, capture_stderr=False), laboratory.events.append)
    assert outcome.output == b"seen\n"


async def test_a_syntax_error_names_its_line(laboratory: Laboratory) -> None:
    """A script that does not compile fails like one that raises."""
    outcome = await laboratory.run("x = 1\nif x\n    pass\n")
    assert outcome.failure is Failure.SCRIPT_ERROR
    assert outcome.script_error is not None
    assert (outcome.script_error.type, outcome.script_error.line) == ("SyntaxError", 2)


@pytest.mark.parametrize(
    ("code", "status"), [("import sys; sys.exit(0)", 0), ("raise SystemExit", 0), ("import os; os._exit(0)", 0)]
)
async def test_leaving_with_status_zero_is_success(laboratory: Laboratory, code: str, status: int) -> None:
    """A script may leave early, by any road, with status 0."""
    outcome = await laboratory.run(code)
    assert outcome.failure is None, outcome
    assert outcome.exit_status == status


async def test_leaving_with_another_status_is_failure(laboratory: Laboratory) -> None:
    """`sys.exit('words')` prints them and ends with status 1, as in any Python."""
    outcome = await laboratory.run("import sys; sys.exit('no data for 2019')")
    assert outcome.failure is Failure.SCRIPT_ERROR
    assert outcome.exit_status == 1
    assert outcome.output == b"no data for 2019\n"


async def test_what_a_script_registers_for_its_end_runs(laboratory: Laboratory) -> None:
    """Exit hooks and finalizers, as at the end of any Python; only those of modules imported ahead do not."""
    code = (
        "import atexit, weakref\nclass Thing:\n    pass\nthing = Thing()\nweakref.finalize(thing, print, 'finalizer')\n"
        "atexit.register(print, 'hook')\nprint('end')"
    )
    outcome = await laboratory.run(code)
    assert outcome.output == b"end\nhook\nfinalizer\n"


async def test_uploads_lie_in_the_in_folder(laboratory: Laboratory, tmp_path: Path) -> None:
    """An upload is a file in /workspace/in, and is not sent back as an artifact."""
    upload = tmp_path / "weights"
    upload.write_bytes(b"w" * 100_000)
    outcome = await laboratory.run("print(len(open('in/last.pth', 'rb').read()))", uploads={"last.pth": upload})
    assert outcome.output == b"100000\n"
    assert outcome.artifacts == ()


async def test_the_same_job_gives_the_same_numbers(laboratory: Laboratory) -> None:
    """random, numpy, torch and hash() start from the job's seed, whenever the script imports them; another seed differs."""
    code = (
        "import random\nprint(random.random(), hash('x'))\nimport numpy\nprint(numpy.random.rand())\n"
        "import torch\nprint(torch.rand(1).item(), torch.get_num_threads())\n"
    )
    first, second = await laboratory.run(code, seed=11), await laboratory.run(code, seed=11)
    other = await laboratory.run(code, seed=12)
    assert first.failure is None, first
    assert first.output == second.output
    assert first.output != other.output
    assert first.output.split()[-1] == b"1"


async def test_more_threads_when_the_job_asks(laboratory: Laboratory) -> None:
    """`threads` sets torch's pool."""
    outcome = await laboratory.run("import torch\nprint(torch.get_num_threads())", threads=2)
    assert outcome.output == b"2\n"


async def test_an_unreadable_table_is_the_earners_failure(laboratory: Laboratory, tmp_path: Path) -> None:
    """Bytes that are no table end the run before any code ran, so it is not charged."""
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"this is no parquet file")
    outcome = await laboratory.run("print('never')", tables={"t": broken})
    assert outcome.failure is Failure.DATA_UNREADABLE
    assert not outcome.code_started
    assert "asset-t" in outcome.detail
    assert outcome.output == b""


async def test_the_time_limit_ends_a_script(laboratory: Laboratory) -> None:
    """What was printed before the limit is kept."""
    outcome = await laboratory.run("print('before')\nwhile True: pass", limits=with_caps(time_seconds=2.0))
    assert outcome.failure is Failure.TIME_LIMIT
    assert outcome.output == b"before\n"
    assert "time_seconds=2" in outcome.detail


async def test_too_much_output_is_refused_whole(laboratory: Laboratory) -> None:
    """The error names the cap; no artifact of such a run is kept."""
    outcome = await laboratory.run("open('a', 'w').write('a')\nprint('x' * 5000)", limits=with_caps(output_bytes=4096))
    assert outcome.failure is Failure.OUTPUT_TOO_LARGE
    assert "output_bytes=4096" in outcome.detail
    assert outcome.truncated
    assert len(outcome.output) == 4096
    assert outcome.artifacts == ()


async def test_nothing_is_left_between_jobs(laboratory: Laboratory) -> None:
    """A job finds none of the files, processes or memory of the job before."""
    dirty = "for folder in ('/workspace', '/tmp', '/dev/shm'):\n    open(folder + '/mark', 'w').write('mark')\nimport math\nmath.pi = 3\n"
    look = "import os, math\nprint([os.listdir(f) for f in ('/workspace', '/tmp', '/dev/shm')], round(math.pi, 2))\n"
    await laboratory.run(dirty)
    outcome = await laboratory.run(look)
    assert outcome.output == b"[[], [], []] 3.14\n"
