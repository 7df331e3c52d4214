//go:build kubevirt_1_7

package main

import (
	"kubevirt.io/client-go/kubecli"

	"kubevirt.io/kubevirt/pkg/controller"
)

// laterCRDs are the definitions that not every release has.
var laterCRDs []crdMaker

// laterHandlers are the webhooks that not every release has.
var laterHandlers map[string]handler

// newInformerFactory makes the factory that virt-api watches the cluster with.
func newInformerFactory(client kubecli.KubevirtClient, namespace string) controller.KubeInformerFactory {
	return controller.NewKubeInformerFactory(client.RestClient(), client, nil, namespace)
}
