"""What a data scientist does without thinking of a sandbox: workers, figures, files by name; each ends, and says what it did."""

from __future__ import annotations

from pathlib import Path

import pytest

from pandacea.domain.outcome import Failure, Outcome
from tests.sandbox.harness import Laboratory, with_caps

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIMITS = with_caps(time_seconds=40.0, memory_bytes=1024 * 1024 * 1024)
"""Each of these scripts once waited for ever, so the time is short; torch, sklearn and matplotlib need more memory than the others."""


async def run(laboratory: Laboratory, code: str) -> Outcome:
    """Run a script within those limits."""
    return await laboratory.run(code, limits=LIMITS)


SEARCH = """
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
x = np.random.rand(60, 3); y = (x[:, 0] > 0.5).astype(int)
search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, n_jobs=2, cv=2).fit(x, y)
print(sorted(search.best_params_), search.n_splits_)
"""
JOBLIB = """
from joblib import Parallel, delayed
print(Parallel(n_jobs=%d, backend="%s")(delayed(abs)(-n) for n in range(4)))
"""
LOADER = """
import torch
from torch.utils.data import DataLoader, TensorDataset
loader = DataLoader(TensorDataset(torch.arange(12.0)), batch_size=4, num_workers=2, persistent_workers=True, prefetch_factor=4, timeout=9)
print(sum(float(batch.sum()) for (batch,) in loader), len(loader))
"""


async def test_a_search_with_jobs_runs_in_one_process(laboratory: Laboratory) -> None:
    """`n_jobs=2` gives the result of one job, and one line says so."""
    outcome = await run(laboratory, SEARCH)
    assert outcome.failure is None, outcome
    assert b"['C'] 2" in outcome.output
    assert outcome.output.count(b"joblib works in this process, with 1 thread(s) instead of n_jobs=2") == 1


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
async def test_each_backend_of_joblib_runs_in_one_process(laboratory: Laboratory, backend: str) -> None:
    """The backend that a script names is not what decides; `n_jobs=-1` is not the machine's number of processors."""
    for jobs in (2, -1):
        outcome = await run(laboratory, JOBLIB % (jobs, backend))
        assert outcome.failure is None, outcome
        assert b"[0, 1, 2, 3]" in outcome.output


async def test_joblib_takes_the_threads_that_a_job_has(laboratory: Laboratory) -> None:
    """Two threads for a job of two, and nothing to say about it."""
    code = "import threading, time\nfrom joblib import Parallel, delayed\n"
    code += "def name(n):\n    time.sleep(0.1)\n    return threading.get_ident()\n"
    code += "print(len(set(Parallel(n_jobs=2)(delayed(name)(n) for n in range(6)))))\n"
    outcome = await laboratory.run(code, limits=LIMITS, threads=2)
    assert (outcome.failure, outcome.output) == (None, b"2\n")


async def test_a_data_loader_reads_without_workers(laboratory: Laboratory) -> None:
    """`num_workers=2` becomes 0, with the options that only workers have; a line says so."""
    outcome = await run(laboratory, LOADER)
    assert outcome.failure is None, outcome
    assert b"66.0 3" in outcome.output
    assert outcome.output.count(b"num_workers=2 became 0") == 1


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
async def test_a_fresh_python_for_workers_is_refused(laboratory: Laboratory, method: str) -> None:
    """It could not find the script's functions, and a pool of such workers would start new ones for ever."""
    code = f"import multiprocessing\nmultiprocessing.get_context('{method}').Pool(2).map(abs, [1])\n"
    outcome = await run(laboratory, code)
    assert outcome.failure is Failure.SCRIPT_ERROR, outcome
    assert outcome.script_error is not None
    assert outcome.script_error.type == "StartMethodError"
    assert f"'{method}' cannot work in a sandbox; use threads" in outcome.script_error.message


async def test_a_manager_is_refused(laboratory: Laboratory) -> None:
    """It would wait for a socket that nobody may open."""
    outcome = await run(laboratory, "import multiprocessing\nmultiprocessing.Manager()\n")
    assert outcome.script_error is not None
    assert "multiprocessing.Manager, which needs a socket, cannot work" in outcome.script_error.message


async def test_loky_without_joblib_is_refused(laboratory: Laboratory) -> None:
    """Its executor would start a fresh Python for each worker."""
    code = "from joblib.externals.loky import get_reusable_executor\nprint(get_reusable_executor(2).submit(abs, -1).result())\n"
    outcome = await run(laboratory, code)
    assert outcome.failure is Failure.SCRIPT_ERROR, outcome
    assert b"loky, which starts a fresh Python for each worker, cannot work" in outcome.output


@pytest.mark.parametrize("start", ["multiprocessing.Pool(2)", "concurrent.futures.ProcessPoolExecutor(2)"])
async def test_forked_workers_work(laboratory: Laboratory, start: str) -> None:
    """A pool and an executor of forks see the script's functions and its table."""
    code = "import concurrent.futures, multiprocessing\ndef double(n):\n    return 2 * n\n"
    code += f"with {start} as pool:\n    print(list(pool.map(double, range(4))))\n"
    outcome = await run(laboratory, code)
    assert (outcome.failure, outcome.output) == (None, b"[0, 2, 4, 6]\n")


@pytest.mark.parametrize("start", ["multiprocessing.Pool(200)", "concurrent.futures.ProcessPoolExecutor(max_workers=200)"])
async def test_more_workers_than_processes_allowed_are_fewer(laboratory: Laboratory, start: str) -> None:
    """A quarter of `pids`; an executor that could not fork would wait for ever."""
    code = f"import concurrent.futures, multiprocessing\nwith {start} as pool:\n    print(len(list(pool.map(abs, range(300)))))\n"
    outcome = await run(laboratory, code)
    assert outcome.failure is None, outcome
    assert b"300" in outcome.output
    assert b"has 16 workers instead of 200" in outcome.output


async def test_all_processors_for_a_booster_is_not_too_many(laboratory: Laboratory) -> None:
    """OpenMP starts at most 32 threads, however many the script or the machine's number of processors asks for."""
    code = "import lightgbm, numpy as np\nx = np.random.rand(2000, 4)\n"
    code += "lightgbm.LGBMClassifier(n_estimators=3, n_jobs=200, verbose=-1).fit(x, x[:, 0] > 0.5)\nprint('fitted')\n"
    outcome = await run(laboratory, code)
    assert (outcome.failure, outcome.output) == (None, b"fitted\n")


async def test_looking_for_a_library_is_not_importing_it(laboratory: Laboratory) -> None:
    """A script that asks whether numpy is there, as many libraries do, has the same seed as one that does not."""
    draw = "import numpy\nprint(numpy.random.rand(3))\n"
    asked = await run(laboratory, "import importlib.util\nassert importlib.util.find_spec('numpy')\n" + draw)
    assert (asked.failure, asked.output) == (None, (await run(laboratory, draw)).output)


async def test_tensors_pass_between_processes(laboratory: Laboratory) -> None:
    """A queue carries them by value; by descriptor, torch's own way, the reader would wait for ever."""
    code = (
        "import torch, torch.multiprocessing as mp\n"
        "def work(queue):\n    queue.put(torch.arange(4.0))\n"
        "queue = mp.get_context('fork').Queue()\nprocess = mp.get_context('fork').Process(target=work, args=(queue,))\n"
        "process.start()\nprint(float(queue.get(timeout=30).sum()))\nprocess.join()\n"
    )
    outcome = await run(laboratory, code)
    assert (outcome.failure, outcome.output) == (None, b"6.0\n")


async def test_a_subprocess_finds_the_packages(laboratory: Laboratory) -> None:
    """A Python that the script starts has the environment of the script."""
    code = "import subprocess, sys\nline = [sys.executable, '-c', 'import numpy; print(numpy.arange(3).sum())']\n"
    code += "print(subprocess.run(line, capture_output=True, text=True).stdout)\n"
    outcome = await run(laboratory, code)
    assert (outcome.failure, outcome.output.split()) == (None, [b"3"])


@pytest.mark.parametrize(
    "code",
    [
        "import urllib.request\nurllib.request.urlopen('http://127.0.0.1/')",
        "import urllib.request\nurllib.request.urlopen('https://example.invalid/')",
        "import requests\nrequests.get('https://example.invalid/')",
        "import socket\nsocket.create_connection(('127.0.0.1', 80))",
        "import socket\nsocket.socket()",
        "import pandas as pd\npd.read_csv('https://example.invalid/a.csv')",
    ],
)
async def test_without_a_network_the_error_says_so(laboratory: Laboratory, code: str) -> None:
    """Whatever a library makes of it, the message ends with what a sandbox offers instead."""
    outcome = await run(laboratory, code)
    assert outcome.failure is Failure.SCRIPT_ERROR, outcome
    assert outcome.script_error is not None
    assert "hint: a sandbox has no network: data comes as variables" in outcome.script_error.message
    assert outcome.output.strip().endswith(b"uploads in /workspace/in.")


@pytest.mark.parametrize("code", ["pd.read_csv('people.csv')", "open('/home/me/people.csv')", "torch.load('model.pt')"])
async def test_a_file_by_name_names_what_is_here(laboratory: Laboratory, people: Path, tmp_path: Path, code: str) -> None:
    """The message names the tables and the uploads that the script does have."""
    upload = tmp_path / "w.pt"
    upload.write_bytes(b"w")
    outcome = await laboratory.run(
        f"import pandas as pd, torch\n{code}\n", limits=LIMITS, tables={"people": people}, uploads={"w.pt": upload}
    )
    assert outcome.script_error is not None, outcome
    assert outcome.script_error.type == "FileNotFoundError"
    assert "data comes as variables (here: people), uploads as /workspace/in/NAME (here: w.pt)" in outcome.script_error.message


async def test_a_missing_module_says_who_can_add_it(laboratory: Laboratory) -> None:
    """For scripts that were not checked before, such as an import by a computed name."""
    outcome = await run(laboratory, "name = 'tensor' + 'flow'\n__import__(name)\n")
    assert outcome.script_error is not None
    assert "has no module tensorflow; its packages are listed at /.well-known/pandacea" in outcome.script_error.message


async def test_other_errors_have_no_hint(laboratory: Laboratory) -> None:
    """A wrong column, a wrong value, a folder that exists: nothing of the sandbox's doing."""
    for code in ("{}['a']", "int('x')", "import os\nos.mkdir('in2')\nos.mkdir('in2')"):
        outcome = await run(laboratory, code)
        assert outcome.script_error is not None
        assert "hint" not in outcome.script_error.message
        assert b"Hint" not in outcome.output
