"""Productions of a whole plant, as their tenant sees them."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from tests.plant import Plant, wait_until

ENDED = frozenset({"succeeded", "failed", "cancelled", "expired"})


def look(running: Plant, production_id: str) -> dict[str, Any]:
    with running.http() as http:
        return dict(http.get(f"/v1/productions/{production_id}").json())


def wait(running: Plant, production_id: str) -> dict[str, Any]:
    def ended() -> bool:
        return look(running, production_id)["status"] in ENDED

    wait_until(ended, 240, lambda: json.dumps(look(running, production_id)))
    return look(running, production_id)


def output_of(running: Plant, production_id: str) -> list[dict[str, str]]:
    with running.http() as http:
        found = http.get(f"/v1/productions/{production_id}/output")
        text = http.get(running.url_for(found.headers["Location"])).text
    return list(csv.DictReader(io.StringIO(text)))
