"""All that this package uses of Covalent: files and database of its server, its config, its client."""
