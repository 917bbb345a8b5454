"""What a production's template names beyond its table: models, and files to look things up in. Each
is held until the transaction ends that accepts the production, or the schedule of such ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from shared.db.aliases import hold_named
from shared.db.files import FileRow, hold_file
from shared.errors import InvalidRequest, ModelNotFound, NotFound
from shared.specs.productions import DataFormat, ReferencedFile
from shared.translation import serves

if TYPE_CHECKING:
    from shared.productions.specs import TemplateHead

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
CLASSIFICATIONS = "/v1/classifications"
EXAMPLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
DOCUMENTS = (".txt", ".text", ".md", ".markdown", ".html", ".htm")
MOST_DOCUMENT_BYTES = 16 * 2**20
_FORMATS: dict[str, DataFormat] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}

Hold = Callable[[Connection, str, str], FileRow | None]
"""A tenant's file by its id, kept from being deleted until the transaction ends."""


@dataclass(frozen=True, slots=True)
class References:
    """Files to look things up in, and the table of audiences."""

    examples: ReferencedFile | None = None
    documents: tuple[ReferencedFile, ...] = ()
    audiences: FileRow | None = None

    @property
    def file_ids(self) -> list[str]:
        """Of all of them, each once."""
        found = {file.id for file in (*self.documents, self.examples, self.audiences) if file}
        return sorted(found)


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


def hold_references(
    connection: Connection, tenant_id: str, head: TemplateHead, *, hold: Hold = hold_file
) -> References:
    """Raises NotFound, and InvalidRequest for a file that is none of the kind."""

    def held(file_id: str, param: str) -> FileRow:
        file = hold(connection, tenant_id, file_id) if file_id.isprintable() else None
        if file is None:
            raise NotFound("there is no such file", param=param)
        return file

    examples = None
    if head.examples_from is not None:
        param = "template.examples_from.file"
        examples = _of_kind(held(head.examples_from.file, param), EXAMPLES, param)
    documents = []
    for at, file_id in enumerate(head.documents.files if head.documents is not None else ()):
        param = f"template.documents.files[{at}]"
        file = held(file_id, param)
        if file.bytes > MOST_DOCUMENT_BYTES:
            message = f"a document has at most {MOST_DOCUMENT_BYTES} bytes"
            raise InvalidRequest(message, param=param)
        documents.append(_of_kind(file, DOCUMENTS, param))
    audiences = None
    if head.audiences is not None and not isinstance(head.audiences, list):
        audiences = held(head.audiences.file, "template.audiences.file")
        format_of(audiences, "template.audiences.file")
    return References(examples, tuple(documents), audiences)


def format_of(file: FileRow, param: str = "data_format") -> DataFormat:
    """What a table is, by the end of its name. Raises InvalidRequest for one that does not tell."""
    for ending, known in _FORMATS.items():
        if file.filename.lower().endswith(ending):
            return known
    raise InvalidRequest(
        "the file's name does not tell what it is: say csv, jsonl or parquet", param=param
    )


def _of_kind(file: FileRow, endings: tuple[str, ...], param: str) -> ReferencedFile:
    if PurePath(file.filename).suffix.lower() not in endings:
        known = ", ".join(endings)
        raise InvalidRequest(f"the file's name ends with none of {known}", param=param)
    return ReferencedFile(id=file.id, filename=file.filename)
