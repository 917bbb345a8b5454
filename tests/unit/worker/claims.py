"""Claims, rows and results as tests need them."""

from __future__ import annotations

from typing import Any

from shared.lifecycle.working import Claim
from worker.engines.protocol import RowResult
from worker.rows import RowInput

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m","messages":[{"role":"user","content":"hello"}]}'


def make_claim(shard_id: int = 1, *, kind: str = "generate", **fields: Any) -> Claim:
    values: dict[str, Any] = {
        "shard_id": shard_id,
        "epoch": 1,
        "job_id": f"{'batch' if kind == 'batch' else 'job'}_{shard_id}",
        "tenant_id": "ten_a",
        "kind": kind,
        "pool": "text",
        "stage": "generate",
        "ordinal": 0,
        "endpoint": CHAT,
        "model": None if kind == "batch" else "m",
        "spec": BODY.decode() if kind == "generate" else "{}",
        "row_count": 1,
        "byte_start": None,
        "byte_end": None,
        "first_line": None,
        "suspect": False,
        "crash_n": 0,
        "input_key": None,
        "stop_reason": None,
    }
    return Claim(**(values | fields))


def make_rows(count: int, *, model: str = "m", batch: bool = True) -> list[RowInput]:
    return [
        RowInput(n, n + 1 if batch else 0, f"row-{n}" if batch else None, CHAT, model, BODY)
        for n in range(count)
    ]


def answer(claim: Claim, index: int = 0, *, status: int = 200, **fields: Any) -> RowResult:
    body = b'{"ok":true}' if status < 400 else b'{"error":{"code":"bad","message":"no"}}'
    values: dict[str, Any] = {"body": body, "input_tokens": 3, "output_tokens": 5}
    return RowResult(claim.shard_id, claim.epoch, index, status, **(values | fields))
