"""Candidates for the challenger: every way to learn on the same folds, and the rule that chooses one."""
