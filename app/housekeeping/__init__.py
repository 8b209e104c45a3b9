"""Periodic work of the service: the reconciler, retention, expiry."""
