"""Simulated hardware that really computes: public, for rehearsal and for other projects' tests.

Nothing here is trusted unless a caller passes its roots by name.
"""
