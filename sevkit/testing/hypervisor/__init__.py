"""A simulated libvirt over a simulated secure processor, behind ``sevkit.hypervisor.protocol``."""
