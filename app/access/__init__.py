"""Who may use the service: API keys, the projects that they belong to, and what each key may do."""
