"""Keep the matplotlib figures that a script left open: each becomes a PNG among its artifacts, as a notebook would have shown it."""

from __future__ import annotations

import functools
import io
import os
import sys
import warnings
from typing import Any, Final

from . import after_import, collect_artifacts

MAX_FIGURES: Final = 20
MAX_PIXELS: Final = 4_000_000
"""Pixels of one figure; a larger one is drawn at a lower resolution."""
MAX_FIGURE_BYTES: Final = 4 * 1024 * 1024
_FILE: Final = "figure-{}.png"
_SAVED: Final = "_pandacea_saved"


def watch_figures() -> None:
    """Remember which figures the script saves by itself: those are not saved again."""
    after_import.run_after_import({"matplotlib.figure": _watch_saving})


def _watch_saving(module: Any) -> None:
    original = module.Figure.savefig

    @functools.wraps(original)
    def savefig(self: Any, *args: Any, **keywords: Any) -> Any:
        result = original(self, *args, **keywords)
        setattr(self, _SAVED, True)
        return result

    module.Figure.savefig = savefig
    # Where there is no screen, show() leaves the figure open: it comes back as an artifact.
    warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")


def save_open_figures(folder: str, caps: dict[str, int]) -> None:
    """Write each open figure that the script did not save to `folder/figure-N.png`, N from 1.

    Never makes a result exceed its caps: a figure that finds no room is left out, and stderr says so. `caps`: the job's.
    """
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return
    left = [figure for figure in map(pyplot.figure, pyplot.get_fignums()) if not getattr(figure, _SAVED, False)]
    count, size = _measure_files(folder)
    number = 0
    for position, figure in enumerate(left):
        if position >= MAX_FIGURES or count >= caps["artifact_count"]:
            sys.stderr.write(f"pandacea: {len(left) - position} open figure(s) were not kept: the result has room for no more\n")
            return
        try:
            content = _draw(figure)
            if len(content) > min(MAX_FIGURE_BYTES, caps["artifact_bytes"], caps["artifacts_bytes"] - size):
                raise ValueError(f"its {len(content)} bytes are too many")
            number = _write_figure(folder, number + 1, content)
        except Exception as error:  # noqa: BLE001 - matplotlib draws late, so a fault of the script's shows here; its run has succeeded
            sys.stderr.write(f"pandacea: an open figure was not kept: {type(error).__name__}: {error}\n")
        else:
            count, size = count + 1, size + len(content)


def _draw(figure: Any) -> bytes:
    width, height = figure.get_size_inches()
    dpi = min(figure.get_dpi(), (MAX_PIXELS / max(width * height, 1e-9)) ** 0.5)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    return drawn.getvalue()


def _write_figure(folder: str, number: int, content: bytes) -> int:
    """Write to the first free name from `number` on and return the number it has."""
    while True:
        path = os.path.join(folder, _FILE.format(number))
        try:
            with open(path, "xb") as file:
                file.write(content)
        except FileExistsError:
            number += 1
        except OSError:
            os.unlink(path)  # half a picture on a full disk would be worse than none
            raise
        else:
            return number


def _measure_files(folder: str) -> tuple[int, int]:
    """Return how many files would leave already, and their bytes."""
    sizes = []
    for place, folders, names in os.walk(folder):
        if place == folder and collect_artifacts.UPLOADS in folders:
            folders.remove(collect_artifacts.UPLOADS)
        sizes += [os.lstat(os.path.join(place, name)).st_size for name in names]
    return len(sizes), sum(sizes)
