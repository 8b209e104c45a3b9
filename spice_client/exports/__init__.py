"""A subset as files that trainers take as they are."""
