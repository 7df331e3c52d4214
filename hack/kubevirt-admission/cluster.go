package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	k8sv1 "k8s.io/api/core/v1"
	extv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/flowcontrol"

	v1 "kubevirt.io/api/core/v1"
	"kubevirt.io/client-go/kubecli"
	cdiv1 "kubevirt.io/containerized-data-importer-api/pkg/apis/core/v1beta1"

	"kubevirt.io/kubevirt/pkg/virt-api/webhooks"
	virtconfig "kubevirt.io/kubevirt/pkg/virt-config"
)

// syncTimeout bounds the wait for the first answers of the API server.
const syncTimeout = 60 * time.Second

// emptyCluster answers every request to the API server as one that has nothing.
type emptyCluster struct{}

// RoundTrip says that there is no such thing.
func (emptyCluster) RoundTrip(request *http.Request) (*http.Response, error) {
	const body = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound",` +
		`"message":"there is no cluster","code":404}`
	if request.Body != nil {
		_ = request.Body.Close()
	}
	return &http.Response{
		Status: "404 Not Found", StatusCode: http.StatusNotFound,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        http.Header{"Content-Type": {"application/json"}},
		Body:          io.NopCloser(strings.NewReader(body)),
		ContentLength: int64(len(body)), Request: request,
	}, nil
}

// newClient makes the client that KubeVirt's webhooks look things up with.
func newClient(config *rest.Config) (kubecli.KubevirtClient, error) {
	// Client-go's default of 5 requests a second is not virt-api's.
	config.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(
		virtconfig.DefaultVirtAPIQPS, virtconfig.DefaultVirtAPIBurst)
	return kubecli.GetKubevirtClientFromRESTConfig(config)
}

// withoutCluster makes a server for which the cluster is empty but for CDI's DataVolume kind, as it
// is for KubeVirt's own unit tests.
func withoutCluster(namespace string) (*server, error) {
	client, err := newClient(&rest.Config{Host: "https://cluster.invalid", Transport: emptyCluster{}})
	if err != nil {
		return nil, err
	}
	crds := idleInformer(&extv1.CustomResourceDefinition{})
	if err := crds.GetStore().Add(importerCRD()); err != nil {
		return nil, err
	}
	return &server{
		config: &configuration{namespace: namespace, crds: crds},
		client: client,
		informers: &webhooks.Informers{
			VMIPresetInformer:  idleInformer(&v1.VirtualMachineInstancePreset{}),
			DataSourceInformer: idleInformer(&cdiv1.DataSource{}),
			NamespaceInformer:  idleInformer(&k8sv1.Namespace{}),
		},
		accounts: webhooks.KubeVirtServiceAccounts(namespace),
	}, nil
}

// withCluster makes a server that looks presets, namespaces, instance types, definitions and the
// like up in a cluster, as virt-api does. The cluster must have KubeVirt's definitions. With watch
// it takes the configuration from the cluster's KubeVirt resource too.
func withCluster(ctx context.Context, kubeconfig, namespace string, watch bool) (*server, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	client, err := newClient(config)
	if err != nil {
		return nil, err
	}
	factory := newInformerFactory(client, namespace)
	s := &server{
		config: &configuration{namespace: namespace, crds: factory.CRD()},
		client: client,
		informers: &webhooks.Informers{
			VMIPresetInformer: factory.VirtualMachinePreset(),
			NamespaceInformer: factory.Namespace(),
		},
		accounts: webhooks.KubeVirtServiceAccounts(namespace),
	}
	waitFor := []cache.InformerSynced{
		factory.CRD().HasSynced, factory.VirtualMachinePreset().HasSynced, factory.Namespace().HasSynced,
	}
	if watch {
		kubevirts := factory.KubeVirt()
		if err := kubevirts.SetTransform(asDeployed); err != nil {
			return nil, err
		}
		if err := s.config.watch(kubevirts); err != nil {
			return nil, err
		}
		waitFor = append(waitFor, kubevirts.HasSynced)
	}
	factory.Start(ctx.Done())
	if err := waitForSync(ctx, waitFor); err != nil {
		return nil, err
	}
	return s, s.addDataSources(ctx, factory.DataSource, factory.DummyDataSource, factory.Start)
}

// addDataSources watches CDI's data sources if the cluster has that kind, as virt-api decides it:
// once, at the start.
func (s *server) addDataSources(
	ctx context.Context, real, dummy func() cache.SharedIndexInformer, start func(<-chan struct{}),
) error {
	crds, err := virtconfig.NewClusterConfigWithCPUArch(
		s.config.crds, idleInformer(&v1.KubeVirt{}), s.config.namespace, architecture)
	if err != nil {
		return err
	}
	if !crds.HasDataSourceAPI() {
		s.informers.DataSourceInformer = dummy()
		return nil
	}
	s.informers.DataSourceInformer = real()
	start(ctx.Done())
	return waitForSync(ctx, []cache.InformerSynced{s.informers.DataSourceInformer.HasSynced})
}

// asDeployed is deployed for what a watch delivers: no virt-operator runs beside this program.
func asDeployed(object any) (any, error) {
	if kubevirt, ok := object.(*v1.KubeVirt); ok {
		deployed(kubevirt)
	}
	return object, nil
}

// waitForSync waits until each informer has seen the cluster once.
func waitForSync(ctx context.Context, synced []cache.InformerSynced) error {
	limited, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	if !cache.WaitForCacheSync(limited.Done(), synced...) {
		return errors.New("the API server did not list what virt-api watches: are KubeVirt's " +
			"definitions installed?")
	}
	return nil
}
