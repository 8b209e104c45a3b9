"""Where stages meet: the typed documents that one stage hands the next."""
