"""What an experiment says: who was assigned to which model, what differs, and what follows from it."""
