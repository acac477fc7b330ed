"""What is told of a job while it is under way: its status, its panel in the UI, its output as it grows."""
