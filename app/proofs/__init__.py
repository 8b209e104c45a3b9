"""Proofs: whether training on a selection gives a better model than training on other rows."""
