"""What models that were made smaller are called."""

from __future__ import annotations

import pytest

from shared.specs.model_jobs import OptimizationSpec, evaluations_of, label_of, metric_of
from worker.tuning.model_names import optimized_name
from worker.tuning.planning import parts_of

JOB = "optjob-01k9aaaaaaaaaaaaaabcdefgh1"


def spec(**fields: object) -> OptimizationSpec:
    return OptimizationSpec.model_validate({"method": {"type": "quantize"}} | fields)


@pytest.mark.parametrize(
    ("source", "suffix", "name"),
    [
        ("smollm2", None, "ft:smollm2:ten_1:int8:bcdefgh1"),
        ("smollm2", "tiny", "ft:smollm2:ten_1:tiny:bcdefgh1"),
        ("ft:smollm2:ten_1:tone:01234567", None, "ft:smollm2:ten_1:tone-int8:bcdefgh1"),
        ("ft:smollm2:ten_1::01234567", None, "ft:smollm2:ten_1:int8:bcdefgh1"),
        ("ft:a:b:ten_1:tone:01234567:ckpt-step-5", None, "ft:a:b:ten_1:tone-int8:bcdefgh1"),
    ],
)
def test_names_tell_base_tenant_and_method(source: str, suffix: str | None, name: str) -> None:
    found = optimized_name(spec(suffix=suffix), source, "ten_1", JOB)
    assert found == name
    assert parts_of(found)[1] == "ten_1"


def test_a_long_suffix_keeps_its_end() -> None:
    source = f"ft:smollm2:ten_1:{'s' * 64}:01234567"
    suffix = parts_of(optimized_name(spec(), source, "ten_1", JOB))[2]
    assert len(suffix) == 64
    assert suffix.endswith("-int8")


def test_each_method_has_a_label() -> None:
    methods = [
        {"type": "merge"},
        {"type": "quantize", "scheme": "int4"},
        {"type": "prune", "amount": 0.25},
        {"type": "prune", "amount": 0.3, "structure": "structured"},
    ]
    labels = [label_of(spec(method=method).method) for method in methods]
    assert labels == ["merged", "int4", "pruned25", "pruned30s"]


@pytest.mark.parametrize(
    ("engine", "made_by", "found"),
    [
        ("text", None, ["supervised"]),
        ("text", "dpo", ["supervised"]),
        ("classifier", "token_classification", ["token_classification"]),
        ("classifier", None, ["text_classification", "token_classification"]),
        ("image", "text_to_image", []),
        ("embedding", None, []),
    ],
)
def test_what_measures_a_model(engine: str, made_by: str | None, found: list[str]) -> None:
    assert evaluations_of(engine, made_by) == found


def test_the_first_metric_is_the_one_that_nobody_named() -> None:
    assert metric_of("supervised", None) == ("loss", False)
    assert metric_of("text_classification", None) == ("macro_f1", True)
    assert metric_of("supervised", "rougeL") == ("rougeL", True)
