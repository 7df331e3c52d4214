"""What this host can do: probes, which read, and ``capabilities``, which decides."""
