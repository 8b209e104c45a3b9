"""Per-sample gradients of a proxy model, sketched: from `Sample`s to the matrix that selection works on.

config.py says what a sketch is of, model.py loads the proxy, engine.py computes, shards.py keeps.
"""
