"""Which URIs of datasets, models and webhooks may be opened."""
