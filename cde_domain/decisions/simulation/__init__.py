"""What would have been decided under another policy or by another model."""
