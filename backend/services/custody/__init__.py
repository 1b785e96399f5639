"""Custody: what the rows say and what the stores hold, compared, put right, rebuilt and counted."""

from backend.services.custody.findings import Finding, FindingKind, Grace, Progress, Step, Unchecked
from backend.services.custody.quarantine import EmptyingReport
from backend.services.custody.rebuild import RebuildReport
from backend.services.custody.repair import Action, ActionKind, RepairReport
from backend.services.custody.service import CustodyService, Scope
from backend.services.custody.usage import Usage
from backend.services.custody.verify import Bounds, VerifyReport

__all__ = [
    "Action",
    "ActionKind",
    "Bounds",
    "CustodyService",
    "EmptyingReport",
    "Finding",
    "FindingKind",
    "Grace",
    "Progress",
    "RebuildReport",
    "RepairReport",
    "Scope",
    "Step",
    "Unchecked",
    "Usage",
    "VerifyReport",
]
