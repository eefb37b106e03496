"""Checks between what was staged and what is published."""
