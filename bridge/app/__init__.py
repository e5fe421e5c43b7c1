"""Composition: the only place that knows every part (house.md section 4).

Reading order: `run` (start and end), `parts` (who gets what), `restoring` (after a restart), `delivery` (text
out), `worker` (the media process), `seeding` (configured conferences).
Not here: rules, wires, packets, tables; the command line (`bridge.cli`).
"""

from bridge.app.run import run

__all__ = ["run"]
