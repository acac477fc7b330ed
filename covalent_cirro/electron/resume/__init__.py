"""Dispatches go on after their server died: which ones, when, and what was begun for their electrons."""
