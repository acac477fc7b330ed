"""Resumes dispatches after their server has ended."""
