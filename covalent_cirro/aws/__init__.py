"""Gateways to AWS: clients, and one file for each service that the plugin uses."""
