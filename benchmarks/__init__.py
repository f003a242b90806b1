"""What is claimed, as commands that print it."""
