"""Other tools that run Python on AWS Batch, and this one, side by side (`make bench-peers`)."""
