"""Selection jobs: request, state, cancel, list."""
