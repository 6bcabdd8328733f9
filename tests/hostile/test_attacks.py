"""Every hostile script, through every backend and mode, ends as it must; and the next honest job finds nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pandacea.domain.outcome import Outcome
from tests.hostile.attack import Attack
from tests.hostile.attacks.every import ATTACKS
from tests.sandbox.harness import Laboratory, with_caps


def judge(attack: Attack, outcome: Outcome) -> None:
    """Fail unless the run ended as the attack's promise says."""
    said = outcome.output.decode("utf-8", "replace")
    shown = f"{attack.name} must hold that {attack.promise}; {outcome.failure}: {outcome.detail}\n{said[-3000:]}"
    assert outcome.failure in attack.ends, shown
    broken = [line for line in said.splitlines() if line.startswith("BROKEN")]
    assert not broken, shown
    if outcome.failure is None and attack.says_held:
        assert "HELD" in said, shown
    assert attack.detail in outcome.detail, shown
    assert outcome.code_started is attack.charged, shown
    if outcome.failure is not None and outcome.script_error is None and outcome.failure != "script-error":
        assert outcome.artifacts == (), shown


def test_there_are_enough_attacks() -> None:
    """At least sixty, each with a name of its own."""
    names = [attack.name for attack in ATTACKS]
    assert len(names) >= 60
    assert len(names) == len(set(names))


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_attack(laboratory: Laboratory, attack: Attack, people: Path, record_property: Callable[[str, object], None]) -> None:
    """The run ends as promised, is charged, and says so by a typed failure."""
    limits = with_caps(time_seconds=attack.seconds, **attack.limits)
    tables = {"people": people} if attack.table else None
    outcome = await laboratory.run(attack.script(), limits=limits, tables=tables)
    record_property("ended", outcome.failure or "completed")
    judge(attack, outcome)
