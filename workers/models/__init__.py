"""Proxy models on their way to this machine: from S3 and model hubs into the cache, and out of GGUF files."""
