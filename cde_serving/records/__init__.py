"""What is kept of every decision: encrypted, chained, sealed by signed checkpoints, and enough to decide again."""
