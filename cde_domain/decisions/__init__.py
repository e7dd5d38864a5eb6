"""Decisions: the policy that turns a score into one of three answers, and the engine that explains it."""
