"""What runs in the container: fetch a call, run its electrons in a child process, store the outcome.

Imports `covalent_cirro.contract` only; never Covalent, unless an electron needs it.
"""
