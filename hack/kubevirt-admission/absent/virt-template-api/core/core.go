// Package core stands in for KubeVirt's VM template API, which VMI and VM admission never reads.
package core

const (
	// GroupName is the API group of VM templates.
	GroupName = "template.kubevirt.io"
	// SingularResourceName names one VM template.
	SingularResourceName = "virtualmachinetemplate"
	// PluralResourceName names VM templates in a URL.
	PluralResourceName = "virtualmachinetemplates"
)
