// Kubevirt-admission runs KubeVirt's own admission code without KubeVirt.
//
// It links KubeVirt's source and serves its VM and VMI mutators and admitters as webhooks, as
// virt-api does, under virt-api's paths. It also prints KubeVirt's own custom resource definitions
// and webhook configurations. What a test learns from it is KubeVirt's answer and not sevkit's
// reading of KubeVirt.
//
// What is not here: virt-api's subresources, its client certificate check, and the webhooks of
// snapshots, restores, backups, exports, clones, migration policies and launcher pods.
package main
