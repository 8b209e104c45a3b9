"""The state machine of jobs, datasets, previews, shards and parts."""
