"""Logs and traces, and the request that each piece of work came from."""
