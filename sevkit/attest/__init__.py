"""Is it authentic (``verify_*``)? Is it acceptable (``validate``)? Never one for the other."""
