"""How a worker process runs a task: its resources, lease heartbeat, presence, failures."""
