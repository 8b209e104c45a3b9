"""How a row of a dataset is read: one reader for the worker that scores rows and the client that exports them."""
