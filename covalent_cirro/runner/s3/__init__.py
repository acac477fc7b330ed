"""The runner's S3: a client on awscrt, a quick read on the standard library, blobs."""
