"""What a long-running part says of itself: JSON log lines, metrics, and a health endpoint."""
