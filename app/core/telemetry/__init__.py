"""What the service tells its operator: logs, metrics, traces; and where each piece of work came from."""
