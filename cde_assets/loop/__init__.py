"""`cde loop`: months of a lender's life in minutes, with nobody at the controls but the platform's own sensors."""
