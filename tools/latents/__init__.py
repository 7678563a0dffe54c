"""Latent caches, one command in each file."""

from tools.latents.commands import build_parser, main

__all__ = ["build_parser", "main"]
