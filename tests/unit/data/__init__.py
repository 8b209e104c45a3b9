"""Tests of workers.data and app.uris."""
