"""Alembic's environment for the decision log: `env.py` runs the scripts in `versions`."""
