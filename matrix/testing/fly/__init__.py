"""Fly's Machines API for tests: its published description, and what stands in for it."""
