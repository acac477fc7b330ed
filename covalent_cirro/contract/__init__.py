"""What executor and runner say to each other: documents in S3, their keys, their limits. Pure."""
