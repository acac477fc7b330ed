"""What became of electrons, told from AWS Batch and S3 alone: jobs, their logs and stories, and how to end them.

Needs no Covalent server and does not touch its database; it must not know the terminal.
"""
