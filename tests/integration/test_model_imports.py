"""Models that tenants bring: verified, stored and served by name, or refused and gone."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from shared import lifecycle
from shared.db.models import delete_model, needed_by
from shared.doorbell import Ringer
from shared.lifecycle import working
from shared.lifecycle.working import ReleaseReason
from tests.integration import tiny_models
from tests.integration.adapter_case import adapted, make_adapter, merged, merged_says
from tests.integration.import_case import ImportPlant, zip_folder
from tests.integration.protocol import OTHER, TENANT
from tests.integration.tiny_diffusers import save, stable_diffusion
from tests.integration.tiny_models import chat, completion, make, row, run, small, texts
from tests.live_session import LiveSession
from tests.unit.worker.imports.packages import look, text_model, zipped
from worker.engines.protocol import Load
from worker.engines.registry import create_engine
from worker.upkeep.assembly import Interrupted
from worker.upkeep.chores import UpkeepChores
from worker.upkeep.cleaner import Cleaner

BOMB = "{% for i in range(99999) %}{% for j in range(99999) %}{{ '' }}{% endfor %}{% endfor %}"


@pytest.fixture
def plant(database_url: str, tmp_path: Path) -> Iterator[ImportPlant]:
    plant = ImportPlant(database_url, tmp_path)
    yield plant
    plant.files.close()
    plant.close()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a llama")
    return make(folder, LlamaForCausalLM, LlamaConfig(**small()))


def engine_of(plant: ImportPlant, job: Any) -> Any:
    model = plant.model_of(job)
    settings = {"dtype": "float32", "device": "cpu"} | model.settings
    spool = str(plant.scratch)
    load = Load(model.id, model.engine, str(plant.folder_of(job)), settings, spool)
    return create_engine(load, lambda fraction, detail: None)


def test_a_text_model_and_an_adapter_on_it_are_served(
    plant: ImportPlant, llama: Path, tmp_path: Path
) -> None:
    job = plant.bring(zip_folder(llama, {"README.md": b"# mine", ".gitattributes": b"x"}))
    model = plant.model_of(job)
    assert model.id == f"import:{TENANT}:mine:{job.id[-8:]}"
    assert (model.engine, model.pool, model.owned_by) == ("text", "text", TENANT)
    assert "/v1/chat/completions" in model.endpoints
    imported = model.detail["imported"]
    assert imported["architecture"] == "LlamaForCausalLM"
    assert imported["compared"]
    assert imported["left_out_files"] == ["README.md"]
    assert plant.events(job.id) == ["import.created", "import.succeeded"]
    assert plant.model(model.id, OTHER) is None

    engine = engine_of(plant, job)
    bodies = run(engine, [completion(0, "the quick", max_tokens=8), chat(1, "hello", max_tokens=4)])
    assert texts(bodies[0]) == [tiny_models.generated(llama, "the quick", 8)]
    assert bodies[1]["choices"][0]["message"]["content"]

    folder = make_adapter(llama, tmp_path / "adapter", seed=3)
    second = plant.bring(zip_folder(folder), suffix="lora", base_model=model.id)
    lora = plant.model_of(second)
    assert (lora.adapter, lora.base_model) == (True, model.id)
    assert lora.detail["imported"]["compared"]
    said = run(
        engine,
        [adapted(completion(0, "the quick", max_tokens=8), plant.folder_of(second), lora.id)],
    )
    assert texts(said[0]) == [merged_says(merged(llama, folder), "the quick", 8)]
    with plant.connection() as connection:
        assert needed_by(connection, TENANT, model.id) == lora.id


def test_a_classifier_is_served(plant: ImportPlant, tmp_path: Path) -> None:
    values = small(max_position_embeddings=64, id2label={0: "animal", 1: "water"})
    del values["num_key_value_heads"]
    folder = make(tmp_path / "topics", BertForSequenceClassification, BertConfig(**values))
    job = plant.bring(zip_folder(folder))
    model = plant.model_of(job)
    assert (model.engine, model.endpoints) == ("classifier", ["/v1/classifications"])
    body = run(engine_of(plant, job), [row(0, "/v1/classifications", {"input": "the quick"})])[0]
    assert body["data"][0]["label"] in {"animal", "water"}


def test_a_pipeline_is_served(plant: ImportPlant, tmp_path: Path) -> None:
    folder = save(tmp_path / "painter", stable_diffusion)
    job = plant.bring(zip_folder(folder))
    model = plant.model_of(job)
    assert (model.engine, model.pool) == ("image", "image")
    assert model.detail["imported"]["compared"]
    assert engine_of(plant, job).detail["device"] == "cpu"


def test_weights_of_another_shape_and_a_template_that_hangs_are_refused(
    plant: ImportPlant, llama: Path
) -> None:
    config = json.loads((llama / "config.json").read_text())
    wider = json.dumps(config | {"intermediate_size": 128}).encode()
    tokenizer = json.loads((llama / "tokenizer_config.json").read_text())
    hangs = json.dumps(tokenizer | {"chat_template": BOMB}).encode()
    changed = {"config.json": wider, "tokenizer_config.json": hangs, "chat_template.jinja": None}
    job = plant.bring(zip_folder(llama, changed))
    assert (job.state, job.error_code) == ("failed", "weights_mismatch")
    assert "mlp" in job.error_message
    assert plant.objects() == []

    job = plant.bring(zip_folder(llama, {"chat_template.jinja": BOMB.encode()}))
    assert (job.state, job.error_code) == ("failed", "chat_template_refused")
    assert plant.events(job.id) == ["import.created", "import.failed"]


def test_a_refused_package_leaves_nothing_and_runs_nothing(
    plant: ImportPlant, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    payload = pickle.dumps(_Canary(str(canary)))
    code = f"open({str(canary)!r}, 'w')".encode()
    files = text_model(auto_map={"AutoModel": "modeling.Evil"}) | {
        "modeling.py": code,
        "pytorch_model.bin": payload,
        "model.safetensors": payload,
    }
    job = plant.bring(zipped(files).getvalue())
    assert job.state == "failed"
    assert {error["code"] for error in job.errors} == {"code_refused", "pickle_refused"}
    del files["modeling.py"], files["pytorch_model.bin"]
    for expected in ("remote_code_refused", "pickle_refused"):
        job = plant.bring(zipped(files).getvalue())
        assert job.error_code == expected
        files["config.json"] = text_model()["config.json"]
    assert not canary.exists()
    assert plant.objects() == []
    assert list(plant.scratch.iterdir()) == []
    assert plant.sql("SELECT 1 FROM models") == []


class _Canary:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (self.path, "w"))


# --- the protocol ---------------------------------------------------------------------------


@pytest.fixture
def _unexamined(monkeypatch: pytest.MonkeyPatch) -> None:
    from worker.upkeep.imports.examination import Examined

    monkeypatch.setattr(
        "worker.upkeep.imports.inspection.examine", lambda *_, **__: Examined(looked=False)
    )


@pytest.mark.usefixtures("_unexamined")
def test_a_zombie_commits_nothing_and_its_objects_go(plant: ImportPlant) -> None:
    job_id = plant.submit(zipped(text_model()).getvalue())
    first = plant.claim_import()
    plant.lose("up")
    plant.session("up2", pools=["upkeep"])
    second = plant.claim_one("up2", pools=["upkeep"])
    plant.run(first)  # a zombie: it stores, and commits nothing
    assert plant.job(job_id).state == "running"
    assert len(plant.objects()) == 3
    plant.imports.run(_chore(second, "up2"))
    job = plant.job(job_id)
    files = plant.model_of(job).files
    assert all(f"/e{second.epoch}/" in file.key for file in files)
    plant.sql("UPDATE jobs SET ended_at = ended_at - interval '2 hours'")
    Cleaner(plant.engine, plant.store).run()
    assert plant.objects() == sorted(file.key for file in files)


def _chore(claim: Any, session: str) -> Any:
    from worker.upkeep.chore import Chore

    return Chore(claim, session)


@pytest.mark.usefixtures("_unexamined")
def test_the_same_end_twice_is_one_and_a_deleted_model_takes_its_files_along(
    plant: ImportPlant,
) -> None:
    job = plant.bring(zipped(text_model()).getvalue())
    model = plant.model_of(job)
    assert not model.detail["imported"]["compared"]
    with plant.engine.begin() as connection:
        assert delete_model(connection, TENANT, model.id)
    plant.sql("UPDATE models SET deleted_at = deleted_at - interval '2 hours'")
    Cleaner(plant.engine, plant.store).run()
    assert plant.objects() == []


@pytest.mark.usefixtures("_unexamined")
def test_a_repeated_commit_is_accepted_and_another_one_is_not(plant: ImportPlant) -> None:
    plant.submit(zipped(text_model()).getvalue())
    claim = plant.claim_import()
    plant.run(claim)
    model = plant.model_of(plant.job(claim.job_id))
    new = working.NewModel(
        id=model.id, pool=model.pool, engine=model.engine, files=model.files, bytes=model.bytes
    )
    with plant.engine.begin() as connection:
        assert working.finish_import(connection, "up", claim.held, new)
    other = working.NewModel(id=model.id, pool=model.pool, engine=model.engine)
    with plant.engine.begin() as connection:
        assert not working.finish_import(connection, "up", claim.held, other)
    errors = [lifecycle.BadLine("x", "y")]
    with plant.engine.begin() as connection:
        assert not working.reject_import(connection, "up", claim.held, errors=errors)


@pytest.mark.usefixtures("_unexamined")
def test_upkeep_runs_it_and_a_stop_interrupts_it(plant: ImportPlant) -> None:
    closed: Queue[Any] = Queue()
    chores = UpkeepChores(
        plant.engine,
        plant.store,
        LiveSession(),  # type: ignore[arg-type]
        Ringer(""),
        on_closed=closed.put,
        max_rows=1,
        max_line_bytes=1_000,
        max_reported=1,
        scratch=plant.scratch,
    )
    plant.submit(zipped(text_model()).getvalue())
    claim = plant.claim_import()
    chores.begin(claim, "up")
    assert closed.get(timeout=60) == claim.held
    assert plant.job(claim.job_id).state == "succeeded"

    job_id = plant.submit(zipped(text_model()).getvalue())
    claim = plant.claim_import()
    assert plant.stop(job_id)
    chore = _chore(claim, "up")
    chore.interrupted.set()
    with pytest.raises(Interrupted):
        plant.imports.run(chore)
    assert plant.release("up", claim.held, ReleaseReason.PREEMPTED) == "cancelled"
    assert plant.job(job_id).state == "cancelled"
    chores.close()


def test_a_file_and_a_base_that_are_gone_are_told(plant: ImportPlant) -> None:
    plant.submit(b"", base_model="writer")
    claim = plant.claim_import()
    plant.run(claim)
    assert plant.job(claim.job_id).error_code == "base_model_not_found"
    plant.submit(b"PK")
    claim = plant.claim_import()
    plant.sql("UPDATE files SET deleted_at = clock_timestamp()")
    plant.run(claim)
    assert plant.job(claim.job_id).error_code == "not_found"


def test_an_accepted_import_outlives_the_time_of_its_file(plant: ImportPlant) -> None:
    plant.submit(b"PK")
    claim = plant.claim_import()
    plant.sql("UPDATE files SET expires_at = clock_timestamp()")
    plant.run(claim)
    assert plant.job(claim.job_id).error_code == "invalid_archive"


def test_an_open_import_keeps_its_base(plant: ImportPlant) -> None:
    job_id = plant.submit(b"PK", base_model="writer")
    with plant.connection() as connection:
        assert needed_by(connection, TENANT, "writer") == job_id
    assert plant.stop(job_id)
    with plant.connection() as connection:
        assert needed_by(connection, TENANT, "writer") is None
    assert plant.job(job_id).state == "cancelled"


def test_an_embedding_model_is_known_by_its_files(tmp_path: Path) -> None:
    values = small(max_position_embeddings=64)
    del values["num_key_value_heads"]
    folder = make(tmp_path / "reader", BertModel, BertConfig(**values))
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(kinds.items())
    ]
    sentences = {
        "modules.json": json.dumps(modules).encode(),
        "1_Pooling/config.json": b'{"pooling_mode_cls_token": true, "made_up": 1}',
    }
    found = look(io.BytesIO(zip_folder(folder, sentences)), tmp_path / "looked")
    assert found.layout.kind.engine == "embedding"
    assert found.compared
    pooling = json.loads(found.rewritten.files["1_Pooling/config.json"])
    assert pooling == {"pooling_mode_cls_token": True}
