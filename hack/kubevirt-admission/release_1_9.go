//go:build !kubevirt_1_8 && !kubevirt_1_7

package main

import (
	"net/http"

	"kubevirt.io/client-go/kubecli"

	"kubevirt.io/kubevirt/pkg/controller"
	validating "kubevirt.io/kubevirt/pkg/virt-api/webhooks/validating-webhook"
	"kubevirt.io/kubevirt/pkg/virt-operator/resource/generate/components"
)

// laterCRDs are the definitions that not every release has.
var laterCRDs = []crdMaker{
	components.NewVirtualMachineBackupCrd,
	components.NewVirtualMachineBackupTrackerCrd,
	components.NewPluginCrd,
}

// laterHandlers are the webhooks that not every release has.
var laterHandlers = map[string]handler{
	components.PluginValidatePath: func(s *server, w http.ResponseWriter, r *http.Request) {
		validating.ServePlugins(w, r, s.config.current())
	},
}

// newInformerFactory makes the factory that virt-api watches the cluster with.
func newInformerFactory(client kubecli.KubevirtClient, namespace string) controller.KubeInformerFactory {
	return controller.NewKubeInformerFactory(client.RestClient(), client, client, nil, namespace)
}
