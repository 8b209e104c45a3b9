"""The picked rows as text: page by page, and searched."""
