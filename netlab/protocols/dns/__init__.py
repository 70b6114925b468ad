"""DNS as it is said on the wire: messages, what became of each lookup, and the names of addresses."""
