"""What a tenant asks for who brings a model of its own."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

KIND = "import"
ENDPOINT = "/v1/models/import"
ID_CHARACTERS = 8
"""Of the job's id, in the model's name."""


class ImportSpec(BaseModel):
    """The body of ``POST /v1/models/import``, once its file is a file of the tenant's."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    file: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            description="A ZIP of the model's folder: the id of a file of purpose `model` or "
            "`assistants`; in a form, the ZIP itself",
        ),
    ]
    suffix: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
            description="A part of the model's name: `import:{tenant}:{suffix}:{id}`",
        ),
    ]
    base_model: (
        Annotated[
            str, Field(min_length=1, max_length=256, description="What an adapter is loaded onto")
        ]
        | None
    ) = None
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
            Field(max_length=16, description="Up to 16 labels of the caller's own"),
        ]
        | None
    ) = None


def model_name(tenant_id: str, spec: ImportSpec, job_id: str) -> str:
    """``import:{tenant}:{suffix}:{id8}``: the name that the model is served by."""
    return f"import:{tenant_id}:{spec.suffix}:{job_id[-ID_CHARACTERS:]}"
