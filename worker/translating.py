"""Rows of endpoints that no engine serves by itself (``shared.translation``): translated when they
are read, and their answers back before they are booked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import structlog

from shared.ids import accepted_seconds, derived_id
from shared.lifecycle.working import Claim
from shared.specs import ModerationSpec, ResponseSpec, parse_body_json
from shared.translation import ENGINE_ENDPOINTS, moderations, responses
from shared.translation.thresholds import Thresholds
from worker.engines.protocol import RowResult
from worker.rows import RowInput, row_id

log = structlog.get_logger()

HTTP_ERROR = 400

Render = Callable[[Any], dict[str, Any]]
"""From an engine's answer, decoded, to the endpoint's."""


class Translator:
    """Translates the rows of shards. Pure, and safe on any thread."""

    def __init__(self, thresholds: Thresholds) -> None:
        """``thresholds`` are those of moderations."""
        self._thresholds = thresholds

    def rows(self, claim: Claim, rows: Sequence[RowInput]) -> list[RowInput]:
        """``rows`` as engines can take them. Raises InvalidRequest for a body that was never
        validated."""
        return [
            self._translated(claim, row) if row.endpoint in ENGINE_ENDPOINTS else row
            for row in rows
        ]

    def _translated(self, claim: Claim, row: RowInput) -> RowInput:
        spec = parse_body_json(row.endpoint, row.body, streams=True)
        match spec:
            case ResponseSpec():
                body, params = responses.chat_body(spec), responses.ENGINE_PARAMS
                render = _render_response(claim, row)
            case ModerationSpec():
                body = moderations.classification_body(spec, row.model)
                params = moderations.ENGINE_PARAMS
                render = self._render_moderation(row_id(claim, row))
            case _:
                raise AssertionError(f"nobody translates {row.endpoint}")
        return replace(
            row,
            engine_endpoint=ENGINE_ENDPOINTS[row.endpoint],
            body=json.dumps(body).encode(),
            translate_back=lambda result: _answer(result, render, params),
        )

    def _render_moderation(self, row: str) -> Render:
        name = derived_id("modr-", row, "moderation")
        return lambda classified: moderations.moderation(
            name, classified=classified, thresholds=self._thresholds
        )


def _render_response(claim: Claim, row: RowInput) -> Render:
    """A response of a job of its own is called as the job is, and was made when that was."""
    body = json.loads(row.body)
    asked = {name: body.get(name) for name in responses.SHOWN}
    own = claim.kind == "response"
    name = claim.job_id if own else derived_id("resp_", row_id(claim, row), "response")
    accepted = accepted_seconds(name) if own else None
    return lambda chat: responses.answered(
        name,
        created_at=int(chat["created"]) if accepted is None else accepted,
        asked=asked,
        chat=chat,
    )


def _answer(result: RowResult, render: Render, params: Mapping[str, str]) -> RowResult:
    try:
        body = json.loads(result.body)
        if result.status >= HTTP_ERROR:
            error = body["error"]
            body = {"error": error | {"param": params.get(error["param"], error["param"])}}
        else:
            body = render(body)
    except (ValueError, LookupError, TypeError, AttributeError) as why:
        log.error("answer_unreadable", row=result.index, error=type(why).__name__)
        error = {"message": "the engine's answer is not what it should be", "type": "server_error",
                 "param": None, "code": "engine_error"}  # fmt: skip
        return RowResult(
            result.shard, result.epoch, result.index, 500, json.dumps({"error": error}).encode()
        )
    return msgspec.structs.replace(result, body=json.dumps(body, separators=(",", ":")).encode())
