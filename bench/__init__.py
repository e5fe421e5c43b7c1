"""Benchmarks of Parley: ceiling probe, load tool, scenarios; results as JSON.

Not here: correctness (`tests`), the compiled load side (`engine/bench`).
"""
