"""The emulated AWS Batch: its API, its scheduler, its jobs, queues and hosts."""
