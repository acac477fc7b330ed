"""Jobs of electrons, their logs and their costs, from AWS Batch and S3 alone; and the end of jobs.

Needs no Covalent server, and does not read or write its database. It must not know the terminal.
"""
