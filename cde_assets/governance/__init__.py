"""Stage governance: fairness, explanations and the card of the challenger."""
