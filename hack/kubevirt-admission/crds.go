package main

import (
	"fmt"
	"io"
	"slices"

	extv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"kubevirt.io/kubevirt/pkg/virt-operator/resource/generate/components"
	marshalutil "kubevirt.io/kubevirt/tools/util"
)

// crdMaker makes one definition, validation schema included.
type crdMaker func() (*extv1.CustomResourceDefinition, error)

// crdMakers are those of which every release knows: what virt-operator installs, and the KubeVirt
// kind, which is installed with virt-operator. laterCRDs has those that came later.
var crdMakers = []crdMaker{
	components.NewKubeVirtCrd,
	components.NewVirtualMachineInstanceCrd,
	components.NewPresetCrd,
	components.NewReplicaSetCrd,
	components.NewVirtualMachineCrd,
	components.NewVirtualMachineInstanceMigrationCrd,
	components.NewVirtualMachineSnapshotCrd,
	components.NewVirtualMachineSnapshotContentCrd,
	components.NewVirtualMachineRestoreCrd,
	components.NewVirtualMachineInstancetypeCrd,
	components.NewVirtualMachineClusterInstancetypeCrd,
	components.NewVirtualMachinePoolCrd,
	components.NewMigrationPolicyCrd,
	components.NewVirtualMachinePreferenceCrd,
	components.NewVirtualMachineClusterPreferenceCrd,
	components.NewVirtualMachineExportCrd,
	components.NewVirtualMachineCloneCrd,
}

// printCRDs writes a YAML stream of the definitions, or of those with these plural names.
func printCRDs(plurals []string, out io.Writer) error {
	wanted := slices.Clone(plurals)
	for _, make := range slices.Concat(crdMakers, laterCRDs) {
		crd, err := make()
		if err != nil {
			return err
		}
		plural := crd.Spec.Names.Plural
		if len(plurals) > 0 && !slices.Contains(plurals, plural) {
			continue
		}
		wanted = slices.DeleteFunc(wanted, func(name string) bool { return name == plural })
		if err := marshalutil.MarshallObject(crd, out); err != nil {
			return err
		}
	}
	if len(wanted) > 0 {
		return fmt.Errorf("KubeVirt %s has no resource %q", linkedVersion(), wanted[0])
	}
	return nil
}
