"""What an electron keeps for its next attempt: its folder, its index, and where both lie in S3."""
