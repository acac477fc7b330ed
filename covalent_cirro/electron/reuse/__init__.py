"""Reuses results of the same work from an earlier dispatch (the option ``reuse_from``)."""
