"""The emulated IAM: who calls, what a request needs, and whether it is allowed."""
