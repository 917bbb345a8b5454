"""What was consumed is added up, tenants are told of limits that they reach, and limits that are
new are settled."""

from __future__ import annotations

from sqlalchemy import Engine

from shared.db.session import autocommit
from shared.db.usage import MOST_ROWS, count_usage
from shared.lifecycle import working
from shared.lifecycle.working import NewLimits

USAGE_ROUNDS = 4
"""Of adding up what was consumed, in one pass."""


class LimitsPass:
    """Any number of processes may run one."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        self._writers: dict[NewLimits, frozenset[str]] = {}
        """Of limits that are new: who wrote shards when they were first seen, and does so still."""

    def count(self) -> None:
        """As much as there is; an open-ended pass would keep the others waiting."""
        for _ in range(USAGE_ROUNDS):
            with self._database.begin() as connection:
                counted = count_usage(connection)
                working.tell_of_limits(connection, counted.spent)
            if counted.rows < MOST_ROWS:
                return

    def settle(self) -> None:
        """Settles what nobody can be submitting past any more; what somebody can waits for the next
        pass."""
        with autocommit(self._database) as connection:
            new = working.unsettled_limits(connection)
            now = working.writers(connection) if new else frozenset()
        self._writers = {limits: self._writers.get(limits, now) & now for limits in new}
        for limits, left in self._writers.items():
            if not left:
                with self._database.begin() as connection:
                    working.settle_limits(connection, limits)
