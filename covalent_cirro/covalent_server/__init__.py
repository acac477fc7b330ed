"""All that is touched of Covalent: the files and the database of its server, its config, its client."""
