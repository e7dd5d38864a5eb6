"""Who is let in: keys, what each may do, and how often."""
