"""Who may call what: the roles, and the groups of them that the route table names."""

from __future__ import annotations

import enum

__all__ = ["ADMINS", "ALL", "ANYBODY", "OPERATORS", "PARTIES", "READERS", "TENANTS", "Role"]


class Role(enum.StrEnum):
    """What a principal is to the NVA.

    admin: everything. tenant: its own VMs, networks, moves, directory entries and events. hypervisor: moves from and
    to the NVEs that it speaks for, and what concerns these. reader: reads everything but the audit.
    """

    ADMIN = "admin"
    TENANT = "tenant"
    HYPERVISOR = "hypervisor"
    READER = "reader"


#: Groups of roles; a route that names none is for admins.
ADMINS = frozenset({Role.ADMIN})
#: Those who see the whole.
READERS = frozenset({Role.ADMIN, Role.READER})
#: Those who run things.
OPERATORS = frozenset({Role.ADMIN, Role.HYPERVISOR})
#: Those who have VMs.
TENANTS = frozenset({Role.ADMIN, Role.TENANT})
#: Those who have moves.
PARTIES = frozenset({Role.ADMIN, Role.TENANT, Role.HYPERVISOR})
#: Everybody who has shown who they are.
ALL = frozenset(Role)
#: Whoever asks: no credentials are needed.
ANYBODY: None = None
