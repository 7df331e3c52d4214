package main

import (
	"errors"
	"flag"
	"io"
	"os"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"kubevirt.io/kubevirt/pkg/virt-operator/resource/generate/components"
)

// printWebhooks writes virt-api's two webhook configurations as virt-operator makes them, with the
// webhooks that this program serves, pointed at a URL instead of a service.
func printWebhooks(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("webhooks", flag.ContinueOnError)
	url := flags.String("url", "", "where \"serve\" listens, such as https://127.0.0.1:8443")
	caFile := flags.String("ca-file", "", "`FILE` with the PEM certificates that sign the server's")
	namespace := flags.String("namespace", defaultNamespace, "the `NAMESPACE` of KubeVirt")
	asJSON := jsonFlag(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || *caFile == "" || !strings.HasPrefix(*url, "https://") {
		return errors.New("webhooks needs --url https://… and --ca-file FILE, and no argument")
	}
	ca, err := os.ReadFile(*caFile)
	if err != nil {
		return err
	}
	mutating, validating := webhookConfigurations(*namespace, strings.TrimSuffix(*url, "/"), ca)
	return printObjects(out, *asJSON, mutating, validating)
}

// webhookConfigurations returns KubeVirt's own objects with only clientConfig replaced. Whatever
// else a webhook says (rules, order, policies, what is absent) is KubeVirt's.
func webhookConfigurations(namespace, url string, ca []byte) (
	*admissionregistrationv1.MutatingWebhookConfiguration,
	*admissionregistrationv1.ValidatingWebhookConfiguration,
) {
	mutating := components.NewVirtAPIMutatingWebhookConfiguration(namespace)
	served := mutating.Webhooks[:0]
	for _, webhook := range mutating.Webhooks {
		if point(&webhook.ClientConfig, url, ca) {
			served = append(served, webhook)
		}
	}
	mutating.Webhooks = served

	validating := components.NewVirtAPIValidatingWebhookConfiguration(namespace)
	checked := validating.Webhooks[:0]
	for _, webhook := range validating.Webhooks {
		if point(&webhook.ClientConfig, url, ca) {
			checked = append(checked, webhook)
		}
	}
	validating.Webhooks = checked
	return mutating, validating
}

// point redirects a webhook to url, and says whether this program serves its path.
func point(client *admissionregistrationv1.WebhookClientConfig, url string, ca []byte) bool {
	if client.Service == nil || client.Service.Path == nil {
		return false
	}
	path := *client.Service.Path
	if _, served := handlers()[path]; !served {
		return false
	}
	target := url + path
	*client = admissionregistrationv1.WebhookClientConfig{URL: &target, CABundle: ca}
	return true
}
