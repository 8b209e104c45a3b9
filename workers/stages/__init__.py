"""The stages of a worker's tasks, a module for each."""
