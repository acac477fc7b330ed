"""The way of one electron on the Covalent server: `send`, `poll`, `receive`."""
