package main

import (
	"encoding/json"
	"flag"
	"io"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// jsonFlag adds the option of the commands that print objects.
func jsonFlag(flags *flag.FlagSet) *bool {
	return flags.Bool("json", false, "print one List in JSON, which is quicker to read than YAML")
}

// printObjects writes objects as one would apply them: a stream of YAML, or a List in JSON.
func printObjects(out io.Writer, asJSON bool, objects ...any) error {
	items := make([]map[string]any, 0, len(objects))
	for _, object := range objects {
		item, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
		if err != nil {
			return err
		}
		// Both are the API server's to say.
		delete(item, "status")
		if metadata, ok := item["metadata"].(map[string]any); ok {
			delete(metadata, "creationTimestamp")
		}
		items = append(items, item)
	}
	if asJSON {
		list := map[string]any{"apiVersion": "v1", "kind": "List", "items": items}
		return json.NewEncoder(out).Encode(list)
	}
	for _, item := range items {
		document, err := yaml.Marshal(item)
		if err != nil {
			return err
		}
		if _, err := out.Write(append([]byte("---\n"), document...)); err != nil {
			return err
		}
	}
	return nil
}
