"""`python -m app.cli` is `spice`."""

from app.cli import app

app()
