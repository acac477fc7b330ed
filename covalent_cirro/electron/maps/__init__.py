"""Mapped electrons on the Covalent server: their items are shared over jobs, and the results joined to a list."""
