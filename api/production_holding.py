"""What a production's template names beyond its table: models, and files to look things up in. Each
is held while the production is accepted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from api import parsing
from shared.db.aliases import hold_named
from shared.db.files import FileRow, hold_file
from shared.errors import InvalidRequest, ModelNotFound, NotFound
from shared.specs.productions import ReferencedFile
from shared.translation import serves

if TYPE_CHECKING:
    from shared.productions.specs import TemplateHead

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
CLASSIFICATIONS = "/v1/classifications"
EXAMPLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
DOCUMENTS = (".txt", ".text", ".md", ".markdown", ".html", ".htm")
MOST_DOCUMENT_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class References:
    """Files to look things up in."""

    examples: ReferencedFile | None = None
    documents: tuple[ReferencedFile, ...] = ()


def hold_models(
    connection: Connection, tenant_id: str, models: tuple[str, ...], head: TemplateHead
) -> dict[str, str]:
    """The model of every name, each held until the transaction ends; ``models`` write the
    candidates. Raises ModelNotFound."""
    found: dict[str, str] = {}
    for name, endpoint, param in sorted(_named(models, head)):
        model = hold_named(connection, tenant_id, name) if name.isprintable() else None
        if model is None:
            raise ModelNotFound(f"there is no model {name!r}", param=param)
        if not serves(model.endpoints, endpoint):
            raise ModelNotFound(f"the model {name!r} does not serve {endpoint}", param=param)
        found[name] = model.id
    return found


def _named(models: tuple[str, ...], head: TemplateHead) -> Iterator[tuple[str, str, str]]:
    """Each name, what it has to serve, and the parameter that names it."""
    steps = [step.model for step in head.steps if step.model is not None]
    yield from ((name, CHAT, "model") for name in {*models, *steps})
    if head.examples_from is not None:
        yield head.examples_from.model, EMBEDDINGS, "template.examples_from.model"
    if head.documents is not None:
        yield head.documents.model, EMBEDDINGS, "template.documents.model"
    if head.best_of is not None and head.best_of.model is not None:
        yield head.best_of.model, CLASSIFICATIONS, "template.best_of.model"


def hold_references(connection: Connection, tenant_id: str, head: TemplateHead) -> References:
    """Raises NotFound, and InvalidRequest for a file that is none of the kind."""
    examples = None
    if head.examples_from is not None:
        param = "template.examples_from.file"
        file = _hold(connection, tenant_id, head.examples_from.file, param)
        examples = _of_kind(file, EXAMPLES, param)
    documents = []
    for at, file_id in enumerate(head.documents.files if head.documents is not None else ()):
        param = f"template.documents.files[{at}]"
        file = _hold(connection, tenant_id, file_id, param)
        if file.bytes > MOST_DOCUMENT_BYTES:
            message = f"a document has at most {MOST_DOCUMENT_BYTES} bytes"
            raise InvalidRequest(message, param=param)
        documents.append(_of_kind(file, DOCUMENTS, param))
    return References(examples, tuple(documents))


def _hold(connection: Connection, tenant_id: str, file_id: str, param: str) -> FileRow:
    file = hold_file(connection, tenant_id, file_id) if parsing.is_id(file_id) else None
    if file is None:
        raise NotFound("there is no such file", param=param)
    return file


def _of_kind(file: FileRow, endings: tuple[str, ...], param: str) -> ReferencedFile:
    if PurePath(file.filename).suffix.lower() not in endings:
        known = ", ".join(endings)
        raise InvalidRequest(f"the file's name ends with none of {known}", param=param)
    return ReferencedFile(id=file.id, filename=file.filename)
