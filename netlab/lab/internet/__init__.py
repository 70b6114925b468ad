"""An internet of any shape, walked packet by packet behind a TUN device.

`shape` says what there is, `routing` which links lead where, `parcel` is a packet under way, `hosts` and
`connections` what its target makes of it, `forward` the whole journey: all of that without a kernel, a clock
or chance of its own. `driver` is the process that does it in real time, `network` builds and removes it,
`truth` tells what happened. The driver starts fast because nothing but `network` and `truth` imports pandas,
networkx or pyroute2.
"""
