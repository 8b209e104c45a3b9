"""What a succeeded job hands back."""
