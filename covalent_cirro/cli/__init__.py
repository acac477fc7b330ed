"""The command line, `cirro`: one file a command."""
