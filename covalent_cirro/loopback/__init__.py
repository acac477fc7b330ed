"""Who may call a server on this machine's loopback: its own user's programs and its own pages, and nobody else."""
