"""The way of one electron on the Covalent server: sent, waited for, received."""
