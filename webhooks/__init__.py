"""The admission webhook: turns VMIs of labelled namespaces into confidential ones, or refuses them.

Runs as a Deployment, ``python -m webhooks``. This package holds no rule of KubeVirt's or of SEV's:
what becomes of a VMI is ``sevkit.kubevirt.webhook``'s word; here it is served.
"""
