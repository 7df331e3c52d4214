"""Simulated KubeVirt, as far as launch security sees it: controller, handler, launcher, API.

``SimulatedKubeVirt`` in ``simulation`` is the whole; the other modules are its parts.
"""
