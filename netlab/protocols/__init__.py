"""What applications say: the bytes of conversations read as requests and answers. No sockets, no clock."""
