"""Attempts of jobs as they run: as processes or containers, with what the ECS agent gives them."""
