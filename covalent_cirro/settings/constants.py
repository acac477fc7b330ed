"""What those need who know no option: importing it takes no time, and commands that show help wait for imports."""

SECTION = "executors.cirro"
"""Section of Covalent's config file."""

MIB_PER_GB = 1024
"""``memory`` is in GB as the stock plugin means it: ``int(memory * 1024)`` MiB."""

PLATFORMS = ("EC2", "FARGATE")
"""What AWS Batch runs jobs on (Batch API Reference, PlatformCapability)."""
