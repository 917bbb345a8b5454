"""Objects of sources: known before they are stored, so that none is left without a row."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine

from shared.db.begun_objects import begin_object, forget_objects
from shared.db.session import autocommit
from shared.storage.base import ObjectWriter, Store


class BegunObjects:
    """Used by any thread. Whatever was begun and is not named by another row an hour later is
    removed by the cleaner; ``drop`` does it sooner."""

    def __init__(self, database: Engine, store: Store) -> None:
        self._database = database
        self._store = store

    def writer(self, tenant_id: str, key: str, *, media_type: str) -> ObjectWriter:
        """As the store's. The transaction that names the object says ``name_object``."""
        with autocommit(self._database) as connection:
            begin_object(connection, tenant_id, key)
        return self._store.writer(key, media_type=media_type)

    def drop(self, keys: Sequence[str]) -> None:
        """Removes objects that nothing names, whether or not they are there."""
        if not keys:
            return
        self._store.delete_keys(keys)
        with autocommit(self._database) as connection:
            forget_objects(connection, keys)
