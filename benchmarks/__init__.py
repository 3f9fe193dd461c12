"""Measurements of speed. Tests assert structure; times are measured here."""
