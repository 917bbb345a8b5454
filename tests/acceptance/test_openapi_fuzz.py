"""Whatever its own document allows, the API answers as the document says.

Seeded: every run sends the same kinds of requests. ``PRESSRUN_TEST_FUZZ_EXAMPLES=100`` (``make
fuzz``) sends more to each operation.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import FailureGroup
from schemathesis.schemas import APIOperation

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

EXAMPLES = int(os.environ.get("PRESSRUN_TEST_FUZZ_EXAMPLES", "6"))
SEED = 20_260_101
QUICK = {"MAX_WAIT_SECONDS": "0.2", "DIRECT_SECONDS": "5", "KEY_CACHE_SECONDS": "600"}


@pytest.fixture
def running(tmp_path: Path, database_url: str) -> Iterator[Plant]:
    with plant(tmp_path / "plant", database_url, settings=QUICK) as made:
        yield made.start(pools="text,image,speech,video")


@pytest.mark.slow
def test_every_operation_answers_as_its_document_says(running: Plant) -> None:
    session = Session()
    document = session.get(f"{running.url}/openapi.json", timeout=TIMEOUT_SECONDS).json()
    belongings = make_belongings(running, document)
    schema = schemathesis.openapi.from_dict(
        document, config=SchemathesisConfig.from_dict({"base-url": running.url})
    )
    sent: Counter[tuple[str, str]] = Counter()
    found = []
    for result in schema.get_all_operations():
        operation = result.ok()
        failure = attack(operation, belongings, session, sent)
        if failure is not None:
            found.append(f"{operation.method.upper()} {operation.path}\n{failure}")
    assert not found, "\n\n".join(found)
    assert set(sent) == set(operations(document))
    print(f"{sum(sent.values())} requests to {len(sent)} operations")


def attack(
    operation: APIOperation[Any, Any, Any, Any],
    belongings: Belongings,
    session: Session,
    sent: Counter[tuple[str, str]],
) -> str | None:
    """Sends valid and invalid requests; returns what is wrong with an answer."""
    ids = belongings.of(operation.path)
    files = belongings.of("/v1/files/{file_id}")["file_id"]
    key = ADMIN_KEY if operation.path.startswith("/v1/admin") else belongings.plant.api_key
    bearer = {"Authorization": f"Bearer {key}"} if operation.definition.raw.get("security") else {}
    from schemathesis import GenerationMode

    cases = operation.as_strategy(generation_mode=GenerationMode.POSITIVE) | operation.as_strategy(
        generation_mode=GenerationMode.NEGATIVE
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
        sent[operation.method.lower(), operation.path] += 1
        case.call_and_validate(
            session=session,
            headers=bearer,
            checks=CHECKS,
            timeout=TIMEOUT_SECONDS,
            allow_redirects=False,
        )

    try:
        send()
    except FailureGroup as group:
        return str(group)
    return None
