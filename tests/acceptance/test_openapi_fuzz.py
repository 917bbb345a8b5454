"""Whatever its own document allows or forbids, the API answers as the document says.

Seeded: every run sends the same kinds of requests. ``PRESSRUN_TEST_FUZZ_EXAMPLES`` (``make fuzz``)
says how many go to each operation.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import FailureGroup

from tests.acceptance.fuzzing import (
    CHECKS,
    TIMEOUT_SECONDS,
    Belongings,
    Session,
    adapt,
    make_belongings,
    operations,
)
from tests.plant import ADMIN_KEY, Plant, plant

EXAMPLES = int(os.environ.get("PRESSRUN_TEST_FUZZ_EXAMPLES", "4"))
BAD_REQUEST = 400
SEED = 20_260_101
QUICK = {"MAX_WAIT_SECONDS": "0.2", "DIRECT_SECONDS": "5", "KEY_CACHE_SECONDS": "600"}


@pytest.fixture
def running(tmp_path: Path, database_url: str) -> Iterator[Plant]:
    with plant(tmp_path / "plant", database_url, settings=QUICK) as made:
        yield made.start(pools="text,image,speech,video")


@pytest.mark.slow
@pytest.mark.timeout(max(600, EXAMPLES * 120))
def test_every_operation_answers_as_its_document_says(running: Plant) -> None:
    session = Session()
    document = session.get(f"{running.url}/openapi.json", timeout=TIMEOUT_SECONDS).json()
    schema = schemathesis.openapi.from_dict(
        document, config=SchemathesisConfig.from_dict({"base-url": running.url})
    )
    attack = Attack(make_belongings(running, document), session)

    found = [attack.on(result.ok()) for result in schema.get_all_operations()]

    failures = [failure for failure in found if failure is not None]
    assert not failures, "\n\n".join(failures)
    assert set(attack.sent) == set(operations(document))
    print(f"{sum(attack.sent.values())} requests to {len(attack.sent)} operations; only refusals "
          f"from {sorted(set(attack.sent) - attack.taken)}")  # fmt: skip


@dataclass
class Attack:
    """Sends requests to one operation after the other."""

    belongings: Belongings
    session: Session
    sent: dict[tuple[str, str], int] = field(default_factory=dict)
    taken: set[tuple[str, str]] = field(default_factory=set)
    """Operations that have done what was asked of them, once at least."""

    def on(self, operation: Any) -> str | None:
        """Valid and invalid requests, mixed; returns what is wrong with the first bad answer."""
        ids = self.belongings.of(operation.path)
        files = self.belongings.of("/v1/files/{file_id}")["file_id"]
        cases = st.one_of(
            operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
            operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
            operation.as_strategy(generation_mode=GenerationMode.NEGATIVE),
        )

        @seed(SEED)
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=cases, data=st.data())
        def send(case: Any, data: Any) -> None:
            adapt(case, data.draw, ids, files)
            self._send(operation, case)

        try:
            send()
        except FailureGroup as group:
            return f"{operation.label}\n{group}"
        return None

    def _send(self, operation: Any, case: Any) -> None:
        address = (operation.method.lower(), operation.path)
        self.sent[address] = self.sent.get(address, 0) + 1
        reply = case.call_and_validate(
            session=self.session,
            headers=self._headers(operation),
            checks=CHECKS,
            timeout=TIMEOUT_SECONDS,
            allow_redirects=False,
        )
        if reply.status_code < BAD_REQUEST:
            self.taken.add(address)

    def _headers(self, operation: Any) -> dict[str, str]:
        if not operation.definition.raw.get("security"):
            return {}
        is_admin = operation.path.startswith("/v1/admin")
        key = ADMIN_KEY if is_admin else self.belongings.plant.api_key
        return {"Authorization": f"Bearer {key}"}
