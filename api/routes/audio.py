"""Speech, as OpenAI's clients ask for it, and the voices there are."""

from __future__ import annotations

import json

from flask import Response, request
from werkzeug.http import dump_options_header

from api import media_rendering, parsing, rendering
from api.direct import JOB_HEADER, Finished, call
from api.idempotency import once_for
from api.links import filename_of
from api.routes.inference import DIRECT_ERRORS
from api.routes.replies import json_reply
from api.routing import IDEMPOTENCY_KEY, RouteTable, query
from api.services import Services
from api.shapes import VoiceList
from api.submitting import prepare
from shared.db.artifacts import get_artifact
from shared.errors import InvalidRequest, ModelNotFound, NotFound, StorageUnavailable
from shared.specs import SpeechSpec

routes = RouteTable("Audio", "Texts read aloud")

SPEECH = "/v1/audio/speech"


@routes.post(
    SPEECH,
    body=SpeechSpec,
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: "The sound, in the format asked for"},
    errors=(*DIRECT_ERRORS, StorageUnavailable),
)
def create_speech(services: Services, tenant_id: str) -> Response:
    """Reads a text aloud and answers the sound itself. When each sentence is heard is in the
    result of the job that `x-pressrun-job` names."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    if not isinstance(document, dict):
        raise InvalidRequest("the body must be a JSON object")
    once = once_for(f"POST {SPEECH}", parsing.idempotency_key(request), document)
    done = call(services, tenant_id, once, lambda: prepare(services, tenant_id, SPEECH, document))
    return done if isinstance(done, Response) else _sound(services, tenant_id, done)


def _sound(services: Services, tenant_id: str, done: Finished) -> Response:
    artifact_id = json.loads(done.result)["artifact_id"]
    with services.autocommit.connect() as connection:
        artifact = get_artifact(connection, tenant_id, artifact_id)
    if artifact is None:
        raise NotFound("the sound was deleted")
    headers = {
        JOB_HEADER: done.row.id,
        "x-pressrun-artifact": artifact.id,
        "Content-Length": str(artifact.bytes),
        "Content-Disposition": dump_options_header(
            "attachment", {"filename": filename_of(artifact)}
        ),
    }
    content = services.store.read(artifact.storage_key)
    return Response(content, headers=headers, content_type=artifact.media_type)


@routes.get(
    "/v1/audio/voices",
    parameters=(query("model", "Only voices of this model", type="string"),),
    answers={200: VoiceList},
    errors=(ModelNotFound,),
)
def list_voices(services: Services, tenant_id: str) -> Response:
    """Every voice of every model that speaks."""
    model_id = request.args.get("model")
    if model_id is None:
        models = services.models.all(tenant_id)
    else:
        models = [services.models.serving(tenant_id, model_id, SPEECH, param="model")]
    shown = [
        voice
        for model in models
        if SPEECH in model.endpoints
        for voice in media_rendering.voices(model)
    ]
    return json_reply(rendering.page(shown, len(shown)))
