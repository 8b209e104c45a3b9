"""Tell a client's server that a job has ended."""
