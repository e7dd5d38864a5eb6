"""The routes of the scoring service, one subject a module."""
