"""AWS and Covalent on a laptop: the local stack."""
