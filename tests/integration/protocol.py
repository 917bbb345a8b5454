"""A database with tenants, sessions and jobs, and short names for what workers do to them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from shared import lifecycle
from shared.db.session import autocommit, make_engine
from shared.ids import new_batch_id, new_file_id, new_job_id
from shared.lifecycle import working
from shared.lifecycle.working import Claim, GenerationEnd, Held, ReleaseReason, SliceEnd, UsageLine
from shared.sharding import Slice
from shared.states import ShardState, StopReason
from shared.storage.base import StoredObject

CHAT = "/v1/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
TENANT = "ten_a"
OTHER = "ten_b"
WINDOW = 32


class Plant:
    """One database. Every call is its own transaction unless a connection is passed around."""

    def __init__(self, url: str) -> None:
        self.engine: Engine = make_engine(url, process="tests", pool_size=4, max_overflow=40)
        for tenant in (TENANT, OTHER):
            self.tenant(tenant)

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Autocommit, as workers claim."""
        with autocommit(self.engine) as connection:
            yield connection

    def sql(self, statement: str, **values: Any) -> Sequence[Row[Any]]:
        with self.connection() as connection:
            result = connection.execute(text(statement), values)
            return result.all() if result.returns_rows else []

    def scalar(self, statement: str, **values: Any) -> Any:
        return self.sql(statement, **values)[0][0]

    # --- what tenants do ------------------------------------------------------------------

    def tenant(self, tenant: str) -> None:
        self.sql("INSERT INTO tenants (id, name) VALUES (:id, :id)", id=tenant)

    def generation(
        self,
        tenant: str = TENANT,
        *,
        pool: str = "text",
        window: int = WINDOW,
        priority: int = 0,
        expires_in: float | None = None,
    ) -> str:
        job_id = new_job_id()
        with self.engine.begin() as connection:
            lifecycle.submit_generation(
                connection,
                job_id=job_id,
                tenant_id=tenant,
                pool=pool,
                endpoint=CHAT,
                model="m",
                body=BODY,
                priority=priority,
                expires_in_seconds=expires_in,
                window=window,
            )
        return job_id

    def batch(self, tenant: str = TENANT, *, priority: int = 0, expires_in: float = 86_400) -> str:
        job_id, file_id = new_batch_id(), new_file_id()
        self.sql(
            "INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256, storage_key)"
            " VALUES (:id, :tenant, 'in.jsonl', 'batch', 10, 'sha', :key)",
            id=file_id,
            tenant=tenant,
            key=f"t/{tenant}/f/{file_id}",
        )
        with self.engine.begin() as connection:
            lifecycle.submit_batch(
                connection,
                job_id=job_id,
                tenant_id=tenant,
                endpoint=CHAT,
                input_file_id=file_id,
                spec={},
                priority=priority,
                expires_in_seconds=expires_in,
                window=WINDOW,
            )
        return job_id

    def stop(
        self, job_id: str, tenant: str = TENANT, reason: StopReason = StopReason.CANCELLED
    ) -> bool:
        with self.engine.begin() as connection:
            return lifecycle.request_stop(
                connection, tenant_id=tenant, job_id=job_id, reason=reason
            )

    # --- what workers do ------------------------------------------------------------------

    def session(
        self, session_id: str = "w1", *, pools: Iterable[str] = ("text",), ttl: float = 600
    ) -> str:
        with self.connection() as connection:
            working.open_session(
                connection,
                session_id=session_id,
                host="host",
                pid=1,
                pools=list(pools),
                ttl_seconds=ttl,
            )
        return session_id

    def claim(
        self,
        session_id: str = "w1",
        *,
        pools: Sequence[str] = ("text", "upkeep"),
        max_shards: int = 64,
        max_rows: int = 100_000,
    ) -> list[Claim]:
        with self.connection() as connection:
            return working.claim(
                connection,
                session_id=session_id,
                pools=pools,
                max_shards=max_shards,
                max_rows=max_rows,
            )

    def claim_one(self, session_id: str = "w1", **options: Any) -> Claim:
        (claim,) = self.claim(session_id, **options)
        return claim

    def finish(self, session_id: str, held: Held, sha256: str = "a" * 64, **fields: Any) -> bool:
        """Commits a single generation; True when it is (or was already) accepted."""
        with self.connection() as connection:
            end = generation_end(held, sha256, **fields)
            return held in working.finish_generations(connection, session_id, [end])

    def finish_slice(self, session_id: str, claim: Claim, **fields: Any) -> bool:
        with self.engine.begin() as connection:
            return working.finish_slice(connection, session_id, slice_end(claim, **fields))

    def finish_validation(
        self, session_id: str, held: Held, *, slices: int, rows: int = 2, pool: str = "text"
    ) -> bool:
        cuts = [Slice(n, n * 100, n * 100 + 100, n * rows + 1, rows, pool) for n in range(slices)]
        with self.engine.begin() as connection:
            return working.finish_validation(connection, session_id, held, slices=cuts)

    def finish_assembly(self, session_id: str, held: Held, *, file_id: str | None = None) -> bool:
        stored = StoredObject(f"final/{held.shard_id}/{held.epoch}", "f" * 64, 10)
        output = working.NewFile(file_id or new_file_id(), "out.jsonl", stored)
        with self.engine.begin() as connection:
            return working.finish_assembly(
                connection,
                session_id,
                held,
                output=output,
                errors=None,
                rows_completed=2,
                rows_failed=0,
                keep_seconds=60.0,
            )

    def release(
        self, session_id: str, held: Held, reason: ReleaseReason, **why: Any
    ) -> ShardState | None:
        with self.engine.begin() as connection:
            return working.release(connection, session_id, held, reason, **why)

    # --- what upkeep does -----------------------------------------------------------------

    def dispatch(self, pool: str = "text", window: int = WINDOW) -> int:
        with self.engine.begin() as connection:
            return working.dispatch(connection, pool=pool, window=window)

    def expire_session(self, session_id: str) -> None:
        """The lease runs out this instant."""
        self.sql(
            "UPDATE sessions SET expires_at = clock_timestamp() - interval '1 second'"
            " WHERE id = :id AND expires_at IS NOT NULL",
            id=session_id,
        )

    def declare_dead(self, session_id: str) -> int:
        with self.connection() as connection:
            return working.declare_dead(connection, [session_id])

    def recover(self) -> list[str]:
        with self.engine.begin() as connection:
            return working.recover_lost(connection)

    def lose(self, session_id: str) -> list[str]:
        """The worker vanishes and the reaper notices."""
        self.expire_session(session_id)
        self.declare_dead(session_id)
        return self.recover()

    def sweep(self) -> int:
        with self.engine.begin() as connection:
            return working.sweep_stopped(connection)

    def expire_overdue(self) -> int:
        with self.engine.begin() as connection:
            return working.expire_overdue(connection)

    # --- what is there --------------------------------------------------------------------

    def job(self, job_id: str) -> Row[Any]:
        (row,) = self.sql("SELECT * FROM jobs WHERE id = :id", id=job_id)
        return row

    def shards(self, job_id: str) -> list[Row[Any]]:
        return list(self.sql("SELECT * FROM shards WHERE job_id = :id ORDER BY id", id=job_id))

    def shard(self, shard_id: int) -> Row[Any]:
        (row,) = self.sql("SELECT * FROM shards WHERE id = :id", id=shard_id)
        return row

    def events(self, job_id: str) -> list[str]:
        rows = self.sql("SELECT type FROM events WHERE job_id = :id ORDER BY id", id=job_id)
        return [row.type for row in rows]

    def usage(self, job_id: str) -> list[tuple[int, int, int, int]]:
        """(epoch, rows, input tokens, output tokens) of every usage row."""
        rows = self.sql(
            "SELECT epoch, rows, input_tokens, output_tokens FROM usage WHERE job_id = :id"
            " ORDER BY shard_id",
            id=job_id,
        )
        return [tuple(row) for row in rows]

    def generating(self, slices: int, *, rows: int = 2) -> str:
        """A batch that was validated into ``slices``, all ready; needs no other upkeep work."""
        session = self.session(f"validator-{new_job_id()}")
        job_id = self.batch()
        claim = self.claim_one(session, pools=["upkeep"])
        assert self.finish_validation(session, claim.held, slices=slices, rows=rows)
        self.dispatch()
        return job_id


def generation_end(
    held: Held, sha256: str = "a" * 64, state: ShardState = ShardState.SUCCEEDED, **fields: Any
) -> GenerationEnd:
    if state == ShardState.SUCCEEDED:
        fields = {
            "result": json.dumps({"id": sha256}),
            "input_tokens": 3,
            "output_tokens": 5,
        } | fields
    return GenerationEnd(held, state, sha256, **fields)


def slice_end(
    claim: Claim,
    *,
    sha256: str = "b" * 64,
    state: ShardState = ShardState.SUCCEEDED,
    completed: int | None = None,
) -> SliceEnd:
    completed = claim.row_count if completed is None else completed
    key = f"t/{claim.tenant_id}/s/{claim.ordinal}/e{claim.epoch}/output.jsonl"
    return SliceEnd(
        claim.held,
        state,
        StoredObject(key, sha256, 10),
        None,
        completed,
        claim.row_count - completed,
        [UsageLine(CHAT, "m", completed, 3 * completed, 5 * completed)],
    )
