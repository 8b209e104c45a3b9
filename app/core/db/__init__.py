"""Engine, sessions, tables and statements: the one place that knows the schema."""
