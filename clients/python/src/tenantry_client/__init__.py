"""Signs in to Tenantry and calls it, as a user."""

from .details import reason, violations
from .session import Session

__all__ = ["Session", "reason", "violations"]
