"""KubeVirt's and our own Kubernetes vocabulary; pure."""
