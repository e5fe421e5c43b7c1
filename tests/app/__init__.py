"""Composition: order of start and end, restoring, text out."""
