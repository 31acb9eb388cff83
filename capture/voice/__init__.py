"""The packet path: from a datagram and its kernel stamp to a record. No decoding, no blocking call."""
