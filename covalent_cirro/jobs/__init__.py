"""What a job of AWS Batch is, how it ends, why it waits, and what users read of it. Pure."""
