"""What every route shares: problem documents, middleware, caching, paging, filters, idempotency, OpenAPI."""
