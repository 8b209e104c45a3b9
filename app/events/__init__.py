"""What happens to a job, as a stream and as a list."""
