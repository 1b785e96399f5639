"""Reconciliation: what the rows say and what the stores hold, compared, put right, rebuilt and counted."""

from backend.services.reconciliation.findings import (
    Finding,
    FindingKind,
    Grace,
    PassProgress,
    ReportProgress,
    Unchecked,
)
from backend.services.reconciliation.quarantine import EmptyingReport
from backend.services.reconciliation.rebuild import RebuildReport
from backend.services.reconciliation.relocation import RelocationReport
from backend.services.reconciliation.repair import Action, ActionKind, RepairReport
from backend.services.reconciliation.service import ReconciliationService, Scope
from backend.services.reconciliation.usage import Usage
from backend.services.reconciliation.verify import Bounds, VerifyReport

__all__ = [
    "Action",
    "ActionKind",
    "Bounds",
    "EmptyingReport",
    "Finding",
    "FindingKind",
    "Grace",
    "PassProgress",
    "RebuildReport",
    "ReconciliationService",
    "RelocationReport",
    "RepairReport",
    "ReportProgress",
    "Scope",
    "Unchecked",
    "Usage",
    "VerifyReport",
]
