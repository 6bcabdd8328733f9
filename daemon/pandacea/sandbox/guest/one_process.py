"""Keep libraries that start worker processes inside the script's own process: a fresh worker could not work here, and some would wait for ever.

A fork works (the filter allows it, within the limit on processes); what needs a fresh Python that finds the script, or a socket with a
name, does not. So joblib's backends become one that uses the job's threads, a DataLoader reads its own batches, and `spawn`,
`forkserver` and `Manager` raise an error that says what to use. Each change is said once on stderr.
"""

# ruff: noqa: SLF001 - these libraries have no public place where one could say how they start processes

from __future__ import annotations

import ctypes
import functools
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from . import after_import

FORK_HINT: Final = "use threads, or multiprocessing.get_context('fork') with Process, Pool, Queue or Pipe"


class StartMethodError(RuntimeError):
    """A way to start processes that cannot work in a sandbox."""


def keep_in_one_process(threads: int, pids: int) -> None:
    """Adapt joblib, torch and multiprocessing, those imported already and those imported later. `threads`: how many joblib may use.

    `pids`: how many processes and threads the sandbox may have; pools take at most a quarter of them.
    """
    _load_openmp()
    after_import.run_after_import(
        {
            "multiprocessing.context": _adapt_multiprocessing,
            "multiprocessing.managers": _adapt_managers,
            "multiprocessing.pool": lambda module: _cap_workers(module.Pool, "processes", pids // 4),
            "concurrent.futures.process": lambda module: _cap_workers(module.ProcessPoolExecutor, "max_workers", pids // 4),
            "joblib.parallel": lambda module: _adapt_joblib(module, threads),
            "joblib.externals.loky.backend.popen_loky_posix": _adapt_loky,
            "torch.utils.data.dataloader": _adapt_data_loader,
            "torch.multiprocessing": _adapt_tensors,
        }
    )


def _load_openmp() -> None:
    """Load torch's libgomp: lightgbm names it without bringing one, and an image or a bare machine has none of its own."""
    torch = importlib.util.find_spec("torch")
    if torch is not None and torch.origin is not None:
        library = Path(torch.origin).with_name("lib") / "libgomp.so.1"
        if library.exists():
            ctypes.CDLL(str(library))


@functools.cache  # once for each text
def _write_note(text: str) -> None:
    sys.stderr.write(f"pandacea: {text}\n")


def _refuse(what: str) -> Callable[..., NoReturn]:
    def refuse(*_args: object, **_keywords: object) -> NoReturn:
        raise StartMethodError(f"{what} cannot work in a sandbox; {FORK_HINT}")

    return refuse


def _adapt_multiprocessing(module: Any) -> None:
    module.SpawnProcess._Popen = staticmethod(_refuse("multiprocessing's start method 'spawn'"))
    module.ForkServerProcess._Popen = staticmethod(_refuse("multiprocessing's start method 'forkserver'"))
    fork = module._concrete_contexts.get("fork")
    if fork is not None:  # the default of Python 3.14 is another
        module._default_context._default_context = fork


def _cap_workers(pool: Any, parameter: str, largest: int) -> None:
    """Keep a pool below the limit on processes: by default it has the machine's processors, and an executor that cannot fork hangs."""
    original = pool.__init__
    signature = inspect.signature(original)

    @functools.wraps(original)
    def capped(*args: Any, **keywords: Any) -> None:
        bound = signature.bind(*args, **keywords)
        wanted = bound.arguments.get(parameter)
        if wanted is None:
            bound.arguments[parameter] = min(os.cpu_count() or 1, largest)
        elif wanted > largest:
            bound.arguments[parameter] = largest
            _write_note(f"{pool.__name__} has {largest} workers instead of {wanted}")
        original(*bound.args, **bound.kwargs)

    pool.__init__ = capped


def _adapt_managers(module: Any) -> None:
    module.BaseManager.start = _refuse("multiprocessing.Manager, which needs a socket,")


def _adapt_loky(module: Any) -> None:
    module.Popen.__init__ = _refuse("loky, which starts a fresh Python for each worker,")


def _adapt_joblib(module: Any, threads: int) -> None:
    class InProcessBackend(module.ThreadingBackend):  # type: ignore[misc]  # known at run time only
        def effective_n_jobs(self, n_jobs: int | None) -> int:
            wanted: int = super().effective_n_jobs(n_jobs)
            if wanted > threads:
                _write_note(f"joblib works in this process, with {threads} thread(s) instead of n_jobs={n_jobs}")
            return min(wanted, threads)

    for name in ("loky", "multiprocessing", "threading"):
        module.BACKENDS[name] = InProcessBackend


def _adapt_data_loader(module: Any) -> None:
    loader = module.DataLoader
    original = loader.__init__
    signature = inspect.signature(original)

    @functools.wraps(original)
    def without_workers(*args: Any, **keywords: Any) -> None:
        bound = signature.bind(*args, **keywords)
        if bound.arguments.get("num_workers"):
            _write_note(f"DataLoader loads in this process, num_workers={bound.arguments['num_workers']} became 0")
            for name in ("num_workers", "prefetch_factor", "persistent_workers", "multiprocessing_context", "timeout"):
                bound.arguments.pop(name, None)  # the last four are refused or without meaning where there are no workers
        original(*bound.args, **bound.kwargs)

    loader.__init__ = without_workers


def _adapt_tensors(module: Any) -> None:
    """Have queues and pipes carry tensors by value: torch would pass a descriptor over a socket, which fails out of the script's sight."""
    import torch

    reducers: dict[type, object] = module.reductions.reduction.ForkingPickler._extra_reducers
    by_descriptor = (torch.Tensor, torch.UntypedStorage, torch.storage.TypedStorage)
    for kind in [kind for kind in reducers if issubclass(kind, by_descriptor)]:
        del reducers[kind]
