"""Runs the commands."""

import sys

from tools.latents.commands import main

if __name__ == "__main__":
    sys.exit(main())
