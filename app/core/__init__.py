"""What the API and the workers share. Imports neither fastapi nor torch, and no other room of the project."""
