"""Bytes of the wire to values and back: no sockets, no clock."""
