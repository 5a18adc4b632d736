"""What all replies have in common."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")
TIME = Field(description="RFC 3339, UTC", examples=["2026-01-31T12:00:00.000Z"])


class Document(BaseModel):
    """What all replies have in common."""

    model_config = ConfigDict(extra="forbid")


class Page(Document, Generic[T]):
    """A part of a list. ``next`` is the value of ``?after=`` for the part that follows, null at the end."""

    items: list[T]
    next: str | None
