"""Features: the one code that turns applications into model inputs, for one row and for millions."""
