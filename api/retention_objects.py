"""The shapes of what is kept for how long, what is left of old jobs, and what was deleted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from api.objects import Page, Shape, UnixSeconds

Days = Annotated[int | None, Field(description="null: for ever")]


class RetentionDays(Shape):
    """Days for which things are kept."""

    input_files: Days
    outputs: Days
    jobs: Days
    events: Days
    usage: Days
    archive: Days


class RetentionPolicy(Shape):
    """What holds for a tenant."""

    object: Literal["retention_policy"]
    tenant_id: str
    days: RetentionDays
    own: Annotated[
        list[str], Field(description="Those for which the plant's own settings do not hold")
    ]


class ArchivedJob(Shape):
    """What is left of a job that was kept for as long as its tenant's policy says."""

    id: str
    object: Literal["archived_job"]
    kind: str
    state: str
    endpoint: str
    model: str | None
    client_id: str | None
    error_code: str | None
    rows_total: int
    rows_completed: int
    rows_failed: int
    input_tokens: int
    output_tokens: int
    created_at: UnixSeconds
    started_at: UnixSeconds | None
    ended_at: UnixSeconds
    archived_at: UnixSeconds


class ArchivedJobList(Page):
    """A page of archived jobs, in the order in which they ended."""

    data: list[ArchivedJob]


class ConsumedInAll(Shape):
    """What an erased tenant had consumed."""

    rows: int
    input_tokens: int
    output_tokens: int


class Deletion(Shape):
    """The record of something that was deleted: the proof, once `status` is `complete`."""

    id: str
    object: Literal["deletion"]
    kind: Literal["job", "file", "artifact", "model", "tenant"]
    target: Annotated[str, Field(description="The id of what was deleted")]
    tenant_id: str
    status: Literal["pending", "complete"]
    created_at: UnixSeconds
    settles_at: Annotated[
        int, Field(description="Unix time before which it is not complete: workers may be late")
    ]
    completed_at: UnixSeconds | None
    rows: Annotated[dict[str, int], Field(description="Removed so far, by table")]
    objects: Annotated[int, Field(description="Removed so far from the store")]
    keys_sha256: Annotated[
        str | None,
        Field(description="SHA-256 of the sorted SHA-256s of their keys, once complete"),
    ]
    usage: ConsumedInAll | None


class DeletionList(Page):
    """A page of deletions."""

    data: list[Deletion]


class DeletedObject(Shape):
    """An object that was removed from the store: the SHA-256 of its key."""

    id: str
    object: Literal["deleted_object"]


class DeletedObjectList(Page):
    """A page of removed objects, by their hashes."""

    data: list[DeletedObject]
