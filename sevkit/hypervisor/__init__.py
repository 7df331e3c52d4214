"""libvirt: what it says of hosts and domains, and its calls for confidential guests."""
