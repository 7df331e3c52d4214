package main

import (
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	extv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/yaml"

	v1 "kubevirt.io/api/core/v1"

	virtconfig "kubevirt.io/kubevirt/pkg/virt-config"
)

const (
	defaultNamespace = "kubevirt"
	// architecture is what virt-operator would report of the cluster; SEV has no other.
	architecture = "amd64"
	// importerGroup is the API group of CDI; KubeVirt 1.7 has no exported name for it.
	importerGroup = "cdi.kubevirt.io"
)

// configuration is the cluster configuration that is in force, which may be replaced while
// requests are answered.
type configuration struct {
	namespace string
	crds      cache.SharedIndexInformer
	latest    atomic.Pointer[virtconfig.ClusterConfig]
	revision  atomic.Uint64
	watched   bool
}

// current returns the configuration in force.
func (c *configuration) current() *virtconfig.ClusterConfig { return c.latest.Load() }

// watch takes the configuration from the cluster's KubeVirt resource, now and as it changes.
func (c *configuration) watch(kubevirts cache.SharedIndexInformer) error {
	config, err := virtconfig.NewClusterConfigWithCPUArch(c.crds, kubevirts, c.namespace, architecture)
	if err != nil {
		return err
	}
	c.watched = true
	c.latest.Store(config)
	return nil
}

// replace puts the configuration of a KubeVirt resource, in YAML or JSON, in force.
//
// It is refused if it has a field that KubeVirt has not, or if KubeVirt judges it invalid: virt-api
// would go on with the last good one, and a test would not learn of its mistake.
func (c *configuration) replace(document []byte) error {
	if c.watched {
		return errors.New("the configuration is the cluster's: change its KubeVirt resource")
	}
	kubevirt, err := parseKubeVirt(document)
	if err != nil {
		return err
	}
	if err := c.judge(kubevirt.DeepCopy()); err != nil {
		return err
	}
	config, err := c.make(kubevirt)
	if err != nil {
		return err
	}
	c.latest.Store(config)
	return nil
}

// make returns KubeVirt's view of a KubeVirt resource, as if virt-operator had deployed it.
func (c *configuration) make(kubevirt *v1.KubeVirt) (*virtconfig.ClusterConfig, error) {
	kubevirt.Name = "kubevirt"
	kubevirt.Namespace = c.namespace
	// The configuration is read again when this changes, and never otherwise.
	kubevirt.ResourceVersion = strconv.FormatUint(c.revision.Add(1), 10)
	deployed(kubevirt)
	kubevirts := idleInformer(&v1.KubeVirt{})
	if err := kubevirts.GetStore().Add(kubevirt); err != nil {
		return nil, err
	}
	return virtconfig.NewClusterConfigWithCPUArch(c.crds, kubevirts, c.namespace, architecture)
}

// judge asks KubeVirt whether it would take this configuration. KubeVirt tells it to its log only,
// so a mark is put where KubeVirt copies it from if, and only if, it takes the whole.
func (c *configuration) judge(kubevirt *v1.KubeVirt) error {
	const mark = "taken"
	kubevirt.Status.DefaultArchitecture = mark
	config, err := c.make(kubevirt)
	if err != nil {
		return err
	}
	if config.GetDefaultArchitecture() != mark {
		return errors.New("KubeVirt refuses this configuration: its log says why")
	}
	return nil
}

// parseKubeVirt reads a KubeVirt resource strictly. Nothing at all is an empty one.
func parseKubeVirt(document []byte) (*v1.KubeVirt, error) {
	kubevirt := &v1.KubeVirt{}
	if err := yaml.UnmarshalStrict(document, kubevirt); err != nil {
		return nil, fmt.Errorf("not a KubeVirt resource: %w", err)
	}
	if kind := kubevirt.Kind; kind != "" && kind != "KubeVirt" {
		return nil, fmt.Errorf("not a KubeVirt resource: its kind is %s", kind)
	}
	return kubevirt, nil
}

// deployed fills in what virt-operator reports; KubeVirt ignores a resource without it.
func deployed(kubevirt *v1.KubeVirt) {
	if kubevirt.Status.Phase == "" {
		kubevirt.Status.Phase = v1.KubeVirtPhaseDeployed
	}
	if kubevirt.Status.DefaultArchitecture == "" {
		kubevirt.Status.DefaultArchitecture = architecture
	}
}

// idleInformer returns an informer that watches nothing: it has what is put into its store.
func idleInformer(kind runtime.Object) cache.SharedIndexInformer {
	indexers := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
	return cache.NewSharedIndexInformer(&cache.ListWatch{}, kind, 0, indexers)
}

// importerCRD is as much of CDI's DataVolume definition as KubeVirt looks at.
func importerCRD() *extv1.CustomResourceDefinition {
	crd := &extv1.CustomResourceDefinition{}
	crd.Name = "datavolumes." + importerGroup
	crd.Spec.Group = importerGroup
	crd.Spec.Names.Kind = "DataVolume"
	return crd
}
