"""The client commands of `spice`. `app.cli` makes the command line out of these and those that run the service."""
