"""Real file descriptors for simulated devices: third-party programs open and ioctl them.

Linux on x86-64 only, and only where FUSE may be mounted: ``mount.unavailable_reason`` says why not.
"""
