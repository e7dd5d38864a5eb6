"""Stage decisions: what was decided, by the day, and what is watched in it."""

GROUP = "decisions"

# Assets with this tag are what the job `monitor` makes, in one run; those by the day first.
MONITORED = {"monitored": "daily"}
