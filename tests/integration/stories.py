"""Runs any story that a state machine can tell against one plant."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.integration.protocol import Plant

SOAK = (400, 80)


def tell_stories(
    machine: type[RuleBasedStateMachine],
    plant: Plant,
    usual: tuple[int, int],
    soak: tuple[int, int] = SOAK,
) -> None:
    """Stories of ``machine``, whose class is given ``plant``, which is closed at the end.

    ``usual``: how many, and of how many steps at most; ``soak``: the same with
    ``PRESSRUN_TEST_PROTOCOL=soak``.
    """
    examples, steps = {"ci": usual, "soak": soak}[os.environ.get("PRESSRUN_TEST_PROTOCOL", "ci")]
    told: Any = type(machine.__name__, (machine,), {"plant": plant})
    try:
        run_state_machine_as_test(
            told,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                print_blob=True,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        plant.close()
