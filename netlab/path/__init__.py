"""Which way packets go: traceroute and what is derived from it.

`probes` says what a probe is and `kinds` what each kind looks like on the wire, `matching` which probe an
answer is for, `engine` when to send which, `state` what was sent and heard. `sockets` is the seam to the
network, with `ports`, `filters` and `listening`; `simulated` the same seam without one. `rows` makes the
frame, `graph` the graph. `trace` puts them together.
"""
