"""Stage governance: fairness, explanations, the card of the challenger and the evidence for it."""
