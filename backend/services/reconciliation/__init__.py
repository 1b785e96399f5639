"""Custody: what the rows say and what the stores hold, compared, put right, rebuilt and counted."""

from backend.services.reconciliation.findings import Finding, FindingKind, Grace, Progress, Step, Unchecked
from backend.services.reconciliation.quarantine import EmptyingReport
from backend.services.reconciliation.rebuild import RebuildReport
from backend.services.reconciliation.repair import Action, ActionKind, RepairReport
from backend.services.reconciliation.service import CustodyService, Scope
from backend.services.reconciliation.usage import Usage
from backend.services.reconciliation.verify import Bounds, VerifyReport

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
