"""Stored values: `stored` puts a value, file or folder into the bucket, and electrons get it in place of its handle."""
