"""Doors to the outside world as Dagster resources: thin typed shells that hand over plain objects."""
