"""Reading rows back from a validated slice, and the one row of a single job."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.specs import parse_body_json
from tests.unit.worker.claims import BODY, CHAT, make_claim
from worker.rows import decode_line, model_of, single_row, slice_rows


def line(custom_id: str, body: bytes = BODY) -> bytes:
    head = json.dumps({"custom_id": custom_id, "method": "POST", "url": CHAT}).encode()
    return head[:-1] + b', "body": ' + body + b"}"


def test_rows_keep_their_lines_and_their_bodies_byte_for_byte() -> None:
    odd = b'{ "model" : "m" ,  "messages":[ {"content":"\\u00e9","role":"user"}] }'
    data = line("a") + b"\r\n\n  \n" + line("b", odd) + b"\n"
    first, second = slice_rows([data[:50], data[50:]], first_line=7)
    assert (first.index, first.line, first.custom_id, first.body) == (0, 7, "a", BODY)
    assert (second.index, second.line, second.custom_id, second.body) == (1, 10, "b", odd)
    assert (second.endpoint, second.model) == (CHAT, "m")


def test_a_slice_that_is_cut_wrongly_is_refused() -> None:
    with pytest.raises(ValueError, match=r"truncated|malformed"):
        slice_rows([line("a")[:-3]], first_line=1)


def test_a_single_job_is_one_row_of_its_spec() -> None:
    claim = make_claim(spec=BODY.decode())
    (row,) = single_row(claim)
    assert (row.index, row.line, row.custom_id) == (0, 0, None)
    assert (row.endpoint, row.model, row.body) == (CHAT, "m", BODY)


def test_a_row_has_four_fields_and_no_others() -> None:
    with pytest.raises(ValueError, match="unknown field"):
        decode_line(line("a")[:-1] + b', "priority": 1}')
    with pytest.raises(ValueError, match="missing required field"):
        decode_line(b'{"custom_id": "a", "method": "POST", "url": "/v1"}')


@given(
    st.lists(st.sampled_from(['"model"', '"\\u006dodel"', '"user"']), min_size=1, max_size=5),
    st.lists(st.text(min_size=1, max_size=5).map(json.dumps), min_size=5, max_size=5),
)
def test_workers_read_the_model_that_was_validated(names: list[str], values: list[str]) -> None:
    """A body may name it twice, or spell the name with escapes; both readers must agree."""
    pairs = ",".join(f"{name}:{value}" for name, value in zip(names, values, strict=False))
    body = b'{"messages":[{"role":"user","content":"x"}],"model":"first",' + pairs.encode() + b"}"
    assert model_of(body) == parse_body_json(CHAT, body).model
