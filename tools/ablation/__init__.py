"""Structures of the world model against each other: equal data, equal training operations."""
