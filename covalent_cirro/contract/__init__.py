"""What executor and runner exchange: documents in S3, their keys and their limits. Pure."""
