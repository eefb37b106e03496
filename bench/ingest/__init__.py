"""How fast a large trail is taken in, beside other engines that do the same work."""
