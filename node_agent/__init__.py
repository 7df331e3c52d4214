"""The node agent: finds out what each EPYC host can really do, and keeps its Node saying so.

Runs as a DaemonSet, ``python -m node_agent``, one pod a node. This package holds no fact about
SEV: what a host can do is ``sevkit.host``'s word, how a Node says it is ``sevkit.kubevirt``'s.
"""
