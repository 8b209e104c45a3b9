"""The HTTP service. It never imports torch, and never imports `workers`."""
