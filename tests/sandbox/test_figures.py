"""Figures of a script come back: what it saved as it saved it, what it left open as PNG, never so that the result is refused for it."""

from __future__ import annotations

import struct

import pytest

from pandacea.domain.outcome import Outcome
from pandacea.sandbox.guest.figures import MAX_FIGURES, MAX_PIXELS
from tests.sandbox.harness import Laboratory, with_caps

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIMITS = with_caps(memory_bytes=1024 * 1024 * 1024)
PLOT = "import matplotlib.pyplot as plt\n"


def names(outcome: Outcome) -> list[str]:
    """The names of a run's artifacts, after it succeeded."""
    assert outcome.failure is None, outcome
    return sorted(artifact.name for artifact in outcome.artifacts)


async def test_an_open_figure_comes_back(laboratory: Laboratory) -> None:
    """As after `plt.show()` in a notebook; no screen is missed, and nothing is printed about one."""
    outcome = await laboratory.run(PLOT + "plt.plot([1, 2])\nplt.show()\n", limits=LIMITS)
    assert names(outcome) == ["figure-1.png"]
    assert outcome.output == b""
    assert outcome.artifacts[0].path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


async def test_what_the_script_saved_or_closed_is_not_saved_again(laboratory: Laboratory) -> None:
    """A figure comes back once; a name that the script has used stays the script's."""
    code = (
        PLOT
        + "plt.plot([1])\nplt.savefig('mine.png')\nplt.figure()\nplt.close()\nplt.figure()\nopen('figure-1.png', 'w').write('x')\n"
    )
    outcome = await laboratory.run(code, limits=LIMITS)
    assert names(outcome) == ["figure-1.png", "figure-2.png", "mine.png"]
    assert {artifact.name: artifact for artifact in outcome.artifacts}["figure-1.png"].path.read_bytes() == b"x"


async def test_a_failed_script_leaves_what_it_saved_only(laboratory: Laboratory) -> None:
    """What was open when it failed was not finished."""
    outcome = await laboratory.run(PLOT + "plt.plot([1])\n1 / 0\n", limits=LIMITS)
    assert outcome.artifacts == ()


async def test_open_figures_have_a_largest_number(laboratory: Laboratory) -> None:
    """The rest is left out, and a line says how many."""
    code = PLOT + f"for number in range({MAX_FIGURES + 3}):\n    plt.figure(figsize=(1, 1))\n"
    outcome = await laboratory.run(code, limits=LIMITS)
    assert len(names(outcome)) == MAX_FIGURES
    assert b"3 open figure(s) were not kept" in outcome.output


async def test_a_large_figure_is_drawn_smaller(laboratory: Laboratory) -> None:
    """A poster of a hundred inches has no more pixels than the largest picture."""
    outcome = await laboratory.run(PLOT + "plt.figure(figsize=(100, 50))\n", limits=LIMITS)
    assert names(outcome) == ["figure-1.png"]
    width, height = struct.unpack(">II", outcome.artifacts[0].path.read_bytes()[16:24])
    assert width * height <= MAX_PIXELS
    assert width == pytest.approx(2 * height, abs=2)


@pytest.mark.parametrize(
    ("caps", "message"), [({"artifact_count": 2}, "room for no more"), ({"artifacts_bytes": 600}, "bytes are too many")]
)
async def test_a_figure_never_makes_a_result_too_large(laboratory: Laboratory, caps: dict[str, float], message: str) -> None:
    """What the script saved fits, so it is kept; the figure that does not is left out."""
    code = PLOT + "open('a', 'w').write('x' * 500)\nopen('b', 'w').write('x')\nplt.plot([1])\n"
    outcome = await laboratory.run(code, limits=with_caps(memory_bytes=1024 * 1024 * 1024, **caps))
    assert names(outcome) == ["a", "b"]
    assert message in outcome.output.decode()


async def test_a_figure_that_cannot_be_drawn_is_left_out(laboratory: Laboratory) -> None:
    """Matplotlib draws at the end, so a fault in a text shows there: the script has succeeded all the same."""
    outcome = await laboratory.run(PLOT + "plt.title('$\\\\frac{$')\n", limits=LIMITS)
    assert names(outcome) == []
    assert b"an open figure was not kept: ValueError" in outcome.output
