"""Statistics of a subset that a result reports."""
