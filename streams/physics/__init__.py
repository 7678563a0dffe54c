"""A small world with exact ground truth, written as real video files."""
