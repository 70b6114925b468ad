"""Captures and snapshots of connections: what is connected, who has it, what failed and why."""
