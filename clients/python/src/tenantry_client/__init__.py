"""Signs in to Tenantry, as a user or a service account, and calls it."""

from .details import reason, violations
from .session import Session

__all__ = ["Session", "reason", "violations"]
