"""What the NVA answers: the pydantic models of replies, from which the OpenAPI document is made.

Replies are built as plain dicts by ``views`` (100,000 of them must not cost a model each); a test holds every
view against its model here. Time stamps are RFC 3339 in UTC with milliseconds; fields named ``at``, ``until`` or
``seconds`` are seconds as numbers, of Unix time or of duration.
"""

from __future__ import annotations

from .common import Document, Page
from .evacuations import EvacuationDocument, EvacueeCounts, EvacueeDocument
from .locations import (
    DirectoryEntry,
    ExplainDocument,
    ExplainedInterface,
    FlowDocument,
    NameDocument,
    NameFailure,
    Unread,
    VerifyDocument,
)
from .moves import (
    Amount,
    ChangeDocument,
    Held,
    LedgerDocument,
    LegDocument,
    MoveDocument,
    MoveGeneration,
    StaleDocument,
    StepDocument,
    UnderlayDocument,
    WaitingDocument,
)
from .registry import (
    BulkDocument,
    BulkItem,
    FaultDocument,
    FrozenDocument,
    InterfaceDocument,
    InventoryDocument,
    LeftDocument,
    NetworkDocument,
    NveDocument,
    NveGeneration,
    PortDocument,
    VmDocument,
    WithoutDocument,
)
from .service import (
    AuditDocument,
    EventDocument,
    FieldError,
    HealthDocument,
    IndexDocument,
    ProblemDocument,
    ReadyDocument,
    Tally,
)

__all__ = [
    "Amount",
    "AuditDocument",
    "BulkDocument",
    "BulkItem",
    "ChangeDocument",
    "DirectoryEntry",
    "Document",
    "EvacuationDocument",
    "EvacueeCounts",
    "EvacueeDocument",
    "EventDocument",
    "ExplainDocument",
    "ExplainedInterface",
    "FaultDocument",
    "FieldError",
    "FlowDocument",
    "FrozenDocument",
    "HealthDocument",
    "Held",
    "IndexDocument",
    "InterfaceDocument",
    "InventoryDocument",
    "LedgerDocument",
    "LeftDocument",
    "LegDocument",
    "MoveDocument",
    "MoveGeneration",
    "NameDocument",
    "NameFailure",
    "NetworkDocument",
    "NveDocument",
    "NveGeneration",
    "Page",
    "PortDocument",
    "ProblemDocument",
    "ReadyDocument",
    "StaleDocument",
    "StepDocument",
    "Tally",
    "UnderlayDocument",
    "Unread",
    "VerifyDocument",
    "VmDocument",
    "WaitingDocument",
    "WithoutDocument",
]
