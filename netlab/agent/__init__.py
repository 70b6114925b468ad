"""The agent: one privileged process that answers over a unix socket what netlab's functions answer.

`netlab agent` runs it; `netlab.connect()` talks to it.
"""
