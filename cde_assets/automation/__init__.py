"""What runs without a person: sensors that watch reports, runs, checks and loans, and schedules."""
