"""Results of the same work from an earlier dispatch, where the client asked for them (``reuse_from``)."""
