"""What a GPU machine runs: read a dataset, compute gradient sketches, select, publish."""
