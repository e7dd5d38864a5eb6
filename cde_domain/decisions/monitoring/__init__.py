"""What was decided, what became of it, and whether both are still as promised."""
