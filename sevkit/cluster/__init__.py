"""The API server: how to reach it, what it says when it refuses, nodes and events.

``kubernetes`` is imported here only, and only where a connection is opened. Whoever asks the API
server takes an ``api.ApiServer``, which ``connection.Connection`` is, and a simulated one may be.
"""
