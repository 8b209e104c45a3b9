"""Tests of workers.data and app.core.uris.datasets."""
