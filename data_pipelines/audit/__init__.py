"""Audits a world: every problem and every oddity of a directory in the released layout, by file, row and field."""

from data_pipelines.audit.audit import audit_world
from data_pipelines.audit.findings import KINDS, Audit, Finding

__all__ = ["KINDS", "Audit", "Finding", "audit_world"]
