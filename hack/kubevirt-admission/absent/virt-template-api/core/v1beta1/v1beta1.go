// Package v1beta1 stands in for KubeVirt's VM template kinds, which VMI and VM admission never
// reads.
package v1beta1

import "k8s.io/apimachinery/pkg/runtime"

// VirtualMachineTemplate is a kind that nothing here makes.
type VirtualMachineTemplate struct{ runtime.Object }
