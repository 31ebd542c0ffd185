"""Whom the platform serves: organisations and their projects, what they may use and spend, and the audit log."""
