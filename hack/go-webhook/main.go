// Command go-webhook is the webhook that one would write in Go with controller-runtime: it makes the
// same changes to a bare VMI as ours makes for SEV-SNP, and knows no rules. It is what
// hack/bench_webhook.py holds ours against, and is used for nothing else.
//
//	go-webhook DIR PORT ANNOTATION
//
// DIR has tls.crt and tls.key, PORT is on loopback, and ANNOTATION is the value of
// sevkit.io/injected. It prints "serving" when it listens, and ends with its standard input.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

const usage = "usage: go-webhook DIR PORT ANNOTATION"

type change struct {
	value any
	path  []string
}

// changes are those that launch_completion makes, each with its path.
func changes(annotation string) []change {
	domain := func(path ...string) []string { return append([]string{"spec", "domain"}, path...) }
	return []change{
		{map[string]any{}, domain("launchSecurity", "snp")},
		{false, domain("firmware", "bootloader", "efi", "secureBoot")},
		{"LiveMigrateIfPossible", []string{"spec", "evictionStrategy"}},
		{"1", domain("resources", "requests", "sevkit.io/sev-snp")},
		{"1", domain("resources", "limits", "sevkit.io/sev-snp")},
		{annotation, []string{"metadata", "annotations", "sevkit.io/injected"}},
	}
}

type injector struct{ changes []change }

func (in injector) Handle(_ context.Context, request admission.Request) admission.Response {
	vmi := &unstructured.Unstructured{}
	if err := json.Unmarshal(request.Object.Raw, &vmi.Object); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	for _, one := range in.changes {
		if err := unstructured.SetNestedField(vmi.Object, one.value, one.path...); err != nil {
			return admission.Errored(http.StatusUnprocessableEntity, err)
		}
	}
	unstructured.RemoveNestedField(vmi.Object, "spec", "domain", "cpu", "maxSockets")
	changed, err := json.Marshal(vmi.Object)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	return admission.PatchResponseFromRaw(request.Object.Raw, changed)
}

func run(folder, port, annotation string) error {
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	log.SetLogger(logr.Discard())
	server := webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: number, CertDir: folder})
	server.Register("/mutate/snp", &admission.Webhook{Handler: injector{changes(annotation)}})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	go func() {
		for server.StartedChecker()(nil) != nil {
			time.Sleep(10 * time.Millisecond)
		}
		fmt.Println("serving")
	}()
	return server.Start(ctx)
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--help" {
		fmt.Println(usage)
		return
	}
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
