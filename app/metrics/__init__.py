"""Prometheus figures: what this process counts of requests, and what the service as a whole does."""
