"""sevkit: AMD SEV, SEV-ES and SEV-SNP made practical on KubeVirt.

Import the leaf that you need (``from sevkit.attest.verify import verify_report``); this package
imports nothing, so that a leaf costs what it costs and no more.
"""

__version__ = "0.1.0"
