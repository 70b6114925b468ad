"""Which way packets go: traceroute and what is derived from it.

`probes` says what a probe looks like on the wire, `engine` when to send which, `state` what was sent and
heard, `sockets` is the seam to the network and `simulated` the same seam without one, `rows` makes the
frame, `graph` the graph. `trace` puts them together.
"""
