"""How the text of an answer is to look: as it comes, as JSON, or as a schema says."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.specs.schemas import check_schema, without_notes

FormatType = Literal["text", "json_object", "json_schema"]
SchemaName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
Description = Annotated[str, Field(max_length=4_096)]
UNFINISHED = "the answer is unfinished: the limit of its tokens was reached"
"""What an answer that was cut says of itself, in ``refusal``."""
ANY_OBJECT = '{"type":"object"}'


class _Known(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, defer_build=True, populate_by_name=True
    )


class NamedSchema(_Known):
    """A JSON schema as chat completions take it."""

    name: SchemaName
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    description: Description | None = None
    strict: bool | None = None
    """Answers are held to the schema either way."""


class ResponseFormat(_Known):
    """``response_format`` of a chat completion."""

    type: FormatType
    json_schema: NamedSchema | None = None

    @model_validator(mode="after")
    def _schema_with_its_type(self) -> Self:
        if (self.type == "json_schema") is not (self.json_schema is not None):
            raise ValueError("'json_schema' belongs to the type json_schema, which needs it")
        return self

    def check(self, param: str) -> None:
        """Raises InvalidSchema; ``param`` is where in the body this is."""
        if self.json_schema is not None:
            check_schema(self.json_schema.schema_, f"{param}.json_schema.schema")

    @property
    def grammar(self) -> str | None:
        """The checked schema that answers are held to, as short as it can be written; None for
        plain text."""
        if self.type == "json_object":
            return ANY_OBJECT
        return None if self.json_schema is None else _written(self.json_schema.schema_)


class ResponseTextFormat(_Known):
    """``text.format`` of a response: the same, in one piece."""

    type: FormatType
    name: SchemaName | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    description: Description | None = None
    strict: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _null_means_default(cls, data: Any) -> Any:
        if isinstance(data, dict) and None in data.values():
            return {name: value for name, value in data.items() if value is not None}
        return data

    @model_validator(mode="after")
    def _schema_with_its_type(self) -> Self:
        named = (self.name is not None, self.schema_ is not None)
        if named != (self.type == "json_schema",) * 2:
            raise ValueError("'name' and 'schema' belong to the type json_schema, which needs both")
        if self.schema_ is None and (self.description is not None or self.strict is not None):
            raise ValueError("'description' and 'strict' belong to a schema")
        return self

    def check(self, param: str) -> None:
        """Raises InvalidSchema; ``param`` is where in the body this is."""
        if self.schema_ is not None:
            check_schema(self.schema_, f"{param}.schema")

    def for_chat(self) -> dict[str, Any]:
        """The ``response_format`` of a chat completion that asks the same."""
        if self.schema_ is None:
            return {"type": self.type}
        return {"type": self.type, "json_schema": {"name": self.name, "schema": self.schema_}}


def _written(schema: dict[str, Any]) -> str:
    return json.dumps(without_notes(schema), ensure_ascii=False, separators=(",", ":"))
