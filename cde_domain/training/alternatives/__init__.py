"""The search for less discriminatory alternatives: candidates made for it, cross-validated beside the challenger."""
