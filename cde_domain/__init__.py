"""What a credit decision is: plain Python, without orchestrator, server, environment or network."""
