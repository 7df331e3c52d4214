"""AMD's Key Distribution Service: addresses, client, certificate cache and bundled roots.

Everything here moves bytes and keeps where they came from. Nothing here is trusted because of
that: whoever verifies a chain decides, and drops a cache entry that turns out to be bad.
"""
