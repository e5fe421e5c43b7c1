"""The adapter to the worker, over a worker made of dictionaries."""
