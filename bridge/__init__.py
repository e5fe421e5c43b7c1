"""Parley's control plane: conferences, gateways to chat networks, state, steering."""
