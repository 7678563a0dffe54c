"""Checks the machines of a training before it: what usually goes wrong, and what to do about it."""
