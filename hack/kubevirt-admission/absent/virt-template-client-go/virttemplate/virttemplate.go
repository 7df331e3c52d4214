// Package virttemplate stands in for the client of KubeVirt's VM template API.
package virttemplate

import (
	"errors"

	"k8s.io/client-go/rest"
)

// Clientset is a client that cannot be had.
type Clientset struct{}

// TemplateV1beta1Client is the client of one version, which cannot be had either.
type TemplateV1beta1Client struct{}

// NewForConfig says that this program has no client for VM templates.
func NewForConfig(*rest.Config) (*Clientset, error) {
	return nil, errors.New("built without the VM template API")
}

// TemplateV1beta1 returns nothing: NewForConfig never gives a Clientset to call it on.
func (*Clientset) TemplateV1beta1() *TemplateV1beta1Client { return nil }

// RESTClient returns nothing, for the same reason.
func (*TemplateV1beta1Client) RESTClient() rest.Interface { return nil }
