"""From a dataset URI to tokenised samples with loss masks, and from picked row numbers back to rows."""
