package main

import (
	"maps"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	v1 "kubevirt.io/api/core/v1"
	"kubevirt.io/client-go/kubecli"

	netadmitter "kubevirt.io/kubevirt/pkg/network/admitter"
	"kubevirt.io/kubevirt/pkg/virt-api/webhooks"
	mutating "kubevirt.io/kubevirt/pkg/virt-api/webhooks/mutating-webhook"
	validating "kubevirt.io/kubevirt/pkg/virt-api/webhooks/validating-webhook"
	virtconfig "kubevirt.io/kubevirt/pkg/virt-config"
	"kubevirt.io/kubevirt/pkg/virt-operator/resource/generate/components"
)

// server has what virt-api gives to its webhooks.
type server struct {
	config    *configuration
	client    kubecli.KubevirtClient
	informers *webhooks.Informers
	accounts  map[string]struct{}
}

// handler answers one admission review.
type handler func(s *server, w http.ResponseWriter, r *http.Request)

// validateNetworks is the one spec validator that virt-api registers with the VMI create admitter.
func validateNetworks(
	path *field.Path, spec *v1.VirtualMachineInstanceSpec, config *virtconfig.ClusterConfig,
) []metav1.StatusCause {
	return netadmitter.Validate(path, spec, config)
}

// handlers maps virt-api's paths to virt-api's own calls.
func handlers() map[string]handler {
	table := map[string]handler{
		components.VMMutatePath: func(s *server, w http.ResponseWriter, r *http.Request) {
			mutating.ServeVMs(w, r, s.config.current(), s.client)
		},
		components.VMIMutatePath: func(s *server, w http.ResponseWriter, r *http.Request) {
			mutating.ServeVMIs(w, r, s.config.current(), s.informers, s.accounts)
		},
		components.MigrationMutatePath: func(_ *server, w http.ResponseWriter, r *http.Request) {
			mutating.ServeMigrationCreate(w, r)
		},
		components.VMICreateValidatePath: func(s *server, w http.ResponseWriter, r *http.Request) {
			validating.ServeVMICreate(w, r, s.config.current(), s.accounts, validateNetworks)
		},
		components.VMIUpdateValidatePath: func(s *server, w http.ResponseWriter, r *http.Request) {
			validating.ServeVMIUpdate(w, r, s.config.current(), s.accounts)
		},
		components.VMValidatePath: func(s *server, w http.ResponseWriter, r *http.Request) {
			validating.ServeVMs(w, r, s.config.current(), s.client, s.informers, s.accounts)
		},
		components.VMIRSValidatePath: func(s *server, w http.ResponseWriter, r *http.Request) {
			validating.ServeVMIRS(w, r, s.config.current())
		},
		components.VMPoolValidatePath: func(s *server, w http.ResponseWriter, r *http.Request) {
			validating.ServeVMPool(w, r, s.config.current(), s.accounts)
		},
		components.VMIPresetValidatePath: func(_ *server, w http.ResponseWriter, r *http.Request) {
			validating.ServeVMIPreset(w, r)
		},
		components.MigrationCreateValidatePath: func(s *server, w http.ResponseWriter, r *http.Request) {
			validating.ServeMigrationCreate(w, r, s.config.current(), s.client, s.accounts)
		},
		components.MigrationUpdateValidatePath: func(_ *server, w http.ResponseWriter, r *http.Request) {
			validating.ServeMigrationUpdate(w, r)
		},
		components.VMInstancetypeValidatePath: func(_ *server, w http.ResponseWriter, r *http.Request) {
			validating.ServeVmInstancetypes(w, r)
		},
		components.VMClusterInstancetypeValidatePath: func(_ *server, w http.ResponseWriter, r *http.Request) {
			validating.ServeVmClusterInstancetypes(w, r)
		},
		components.VMPreferenceValidatePath: func(_ *server, w http.ResponseWriter, r *http.Request) {
			validating.ServeVmPreferences(w, r)
		},
		components.VMClusterPreferenceValidatePath: func(_ *server, w http.ResponseWriter, r *http.Request) {
			validating.ServeVmClusterPreferences(w, r)
		},
		components.StatusValidatePath: func(s *server, w http.ResponseWriter, r *http.Request) {
			validating.ServeStatusValidation(w, r, s.config.current(), s.client, s.informers, s.accounts)
		},
		components.PodEvictionValidatePath: func(s *server, w http.ResponseWriter, r *http.Request) {
			validating.ServePodEvictionInterceptor(w, r, s.config.current(), s.client)
		},
	}
	maps.Copy(table, laterHandlers)
	return table
}
