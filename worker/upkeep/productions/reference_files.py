"""The tenant's files that a template looks things up in, read when a production is validated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from shared.db.files import file_of_job
from shared.db.session import autocommit
from shared.errors import InvalidRequest
from shared.productions.specs import Example
from shared.productions.tables import TableRefused
from shared.productions.template import Template
from shared.specs.productions import ProductionSpec, ReferencedFile
from shared.storage.base import Store
from worker.tuning.data.source import Source
from worker.upkeep.chore import Chore
from worker.upkeep.productions.data import open_table
from worker.upkeep.productions.documents import MOST_PASSAGES, read_document, too_many
from worker.upkeep.productions.examples import PARAM, read_examples
from worker.upkeep.productions.references import Passage, References


@dataclass(frozen=True, slots=True)
class TenantFiles:
    """Files of the tenant whose production is validated."""

    database: Engine
    store: Store
    chore: Chore
    scratch: Path | None

    def open(self, file: ReferencedFile, param: str) -> Source:
        """Raises InvalidRequest for one that is gone."""
        with autocommit(self.database) as connection:
            found = file_of_job(connection, self.chore.claim.tenant_id, file.id)
        if found is None:
            raise InvalidRequest(f"there is no such file: {file.id}", param=param)
        key = found.storage_key
        source = Source(file.filename, found.bytes, lambda: self.store.read(key))
        return source.interruptible(self.chore.interrupted.is_set)


def read_references(template: Template, spec: ProductionSpec, files: TenantFiles) -> References:
    """Raises InvalidRequest that names the key and what is wrong with its file."""
    return References(_examples(template, spec, files), _passages(spec, files))


def _examples(template: Template, spec: ProductionSpec, files: TenantFiles) -> list[Example]:
    if spec.examples_file is None:
        return []
    source = files.open(spec.examples_file, PARAM)
    try:
        return list(read_examples(open_table(source, scratch=files.scratch), template))
    except TableRefused as refused:
        message = f"examples_from.file: {refused.bad.message}"
        raise InvalidRequest(message, param=PARAM) from None


def _passages(spec: ProductionSpec, files: TenantFiles) -> list[Passage]:
    passages: list[Passage] = []
    for at, file in enumerate(spec.documents):
        source = files.open(file, f"template.documents.files[{at}]")
        for passage in read_document(file, source.open_chunks(), at):
            passages.append(passage)
            if len(passages) > MOST_PASSAGES:
                raise too_many(at)
    return passages
