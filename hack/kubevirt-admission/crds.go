package main

import (
	"flag"
	"fmt"
	"io"
	"slices"

	extv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"kubevirt.io/kubevirt/pkg/virt-operator/resource/generate/components"
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

// printCRDs writes the definitions, or those of the resources with these plural names.
func printCRDs(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("crds", flag.ContinueOnError)
	asJSON := jsonFlag(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	var found []any
	missing := slices.Clone(flags.Args())
	for _, maker := range slices.Concat(crdMakers, laterCRDs) {
		crd, err := maker()
		if err != nil {
			return err
		}
		plural := crd.Spec.Names.Plural
		if flags.NArg() == 0 || slices.Contains(flags.Args(), plural) {
			found = append(found, crd)
		}
		missing = slices.DeleteFunc(missing, func(name string) bool { return name == plural })
	}
	if len(missing) > 0 {
		return fmt.Errorf("KubeVirt %s has no resource %q", linkedVersion(), missing[0])
	}
	return printObjects(out, *asJSON, found...)
}
