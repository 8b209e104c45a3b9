"""What a worker does with a message, a module for each stage."""
