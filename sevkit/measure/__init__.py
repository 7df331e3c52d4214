"""What a launch digest should be. Pure: takes bytes, gives digests, opens nothing."""
