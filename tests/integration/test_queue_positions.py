"""Places in line are of everybody's work, though requests see nothing of other tenants."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from sqlalchemy import text

from shared.db.queue_estimates import places_ahead
from shared.db.security import acting_for
from tests.integration.api_case import ApiCase, api_fixture

__all__ = ["api_fixture"]


@pytest.fixture(name="rival")
def rival_fixture(api: ApiCase) -> str:
    """The id of another tenant, of whom five jobs wait."""
    mine, api.key = api.key, api.new_tenant()
    job_id, *_ = [api.submit() for _ in range(5)]
    api.key = mine
    return owner_of(api, job_id)


def owner_of(api: ApiCase, job_id: str) -> str:
    with api.begin() as connection:
        found = connection.execute(
            text("SELECT tenant_id FROM jobs WHERE id = :id"), {"id": job_id}
        )
        return str(found.scalar_one())


def weigh(api: ApiCase, tenant_id: str, weight: float) -> None:
    with api.begin() as connection:
        connection.execute(
            text("UPDATE tenants SET weight = :weight WHERE id = :id"),
            {"id": tenant_id, "weight": weight},
        )


def positions(api: ApiCase, jobs: Sequence[str]) -> list[int]:
    return [api.get(f"/v1/jobs/{job}").json["queue_position"] for job in jobs]


def test_a_place_counts_others_as_their_weight_is_owed(api: ApiCase, rival: str) -> None:
    jobs = [api.submit() for _ in range(3)]
    assert positions(api, jobs) == [0 + 1, 1 + 2, 2 + 3]
    weigh(api, rival, 2)
    assert positions(api, jobs) == [0 + 2, 1 + 4, 2 + 5]  # no more than there are
    weigh(api, owner_of(api, jobs[0]), 8)
    assert positions(api, jobs) == [0 + 1, 1 + 1, 2 + 1]


def test_what_would_be_added_has_the_next_place(api: ApiCase, rival: str) -> None:
    tenant = owner_of(api, api.submit())
    # As the API's role, for this tenant alone.
    with acting_for(tenant), api.services.autocommit.connect() as connection:
        assert connection.execute(text("SELECT DISTINCT tenant_id FROM shards")).all() == [
            (tenant,)
        ]
        assert places_ahead(connection, tenant, "text") == 1 + 2
        assert places_ahead(connection, tenant, "image") == 0


def test_a_place_is_one_number_and_says_nothing_of_anybody(api: ApiCase, rival: str) -> None:
    with acting_for("nobody"), api.services.autocommit.connect() as connection:
        assert places_ahead(connection, "nobody", "text") == 0
