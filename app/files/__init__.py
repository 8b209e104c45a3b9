"""What the allowed directories hold, to choose from."""
