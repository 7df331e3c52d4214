package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubevirt.io/kubevirt/pkg/virt-operator/resource/generate/components"
)

const (
	gateOn  = `{"spec":{"configuration":{"developerConfiguration":{"featureGates":["WorkloadEncryptionSEV"]}}}}`
	gateOff = `{"spec":{"configuration":{"developerConfiguration":{"disabledFeatureGates":["WorkloadEncryptionSEV"]}}}}`
)

// start serves an empty cluster with this KubeVirt resource.
func start(t *testing.T, kubevirt string) (*server, *httptest.Server) {
	t.Helper()
	s, err := withoutCluster(defaultNamespace)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.config.replace([]byte(kubevirt)); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(s.routes())
	t.Cleanup(web.Close)
	return s, web
}

// review posts a VMI's creation and returns the answer.
func review(t *testing.T, url, path, spec string) *admissionv1.AdmissionResponse {
	t.Helper()
	vmi := `{"apiVersion":"kubevirt.io/v1","kind":"VirtualMachineInstance",` +
		`"metadata":{"name":"t","namespace":"default"},"spec":` + spec + `}`
	asked := admissionv1.AdmissionReview{Request: &admissionv1.AdmissionRequest{
		UID:       "u",
		Operation: admissionv1.Create,
		Resource: metav1.GroupVersionResource{
			Group: "kubevirt.io", Version: "v1", Resource: "virtualmachineinstances",
		},
	}}
	asked.Request.Object.Raw = []byte(vmi)
	body, err := json.Marshal(asked)
	if err != nil {
		t.Fatal(err)
	}
	got, err := http.Post(url+path, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	var answer admissionv1.AdmissionReview
	if err := json.NewDecoder(got.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	if answer.Response == nil || answer.Response.UID != "u" {
		t.Fatalf("no answer to this review: %v", answer)
	}
	return answer.Response
}

func TestLaunchSecurityIsAdmittedAsKubeVirtDoes(t *testing.T) {
	const efi = `"firmware":{"bootloader":{"efi":{"secureBoot":false}}}`
	for name, row := range map[string]struct{ kubevirt, domain, refusal string }{
		"snp with the gate on":  {gateOn, `"launchSecurity":{"snp":{}},` + efi, ""},
		"snp with the gate off": {gateOff, `"launchSecurity":{"snp":{}},` + efi, "WorkloadEncryptionSEV feature gate is not enabled in kubevirt-config"},
		"snp without EFI":       {gateOn, `"launchSecurity":{"snp":{}}`, "SNP requires OVMF (UEFI)"},
		"nothing":               {gateOff, efi, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, web := start(t, row.kubevirt)
			spec := `{"architecture":"amd64","domain":{"devices":{},"memory":{"guest":"1Gi"},` + row.domain + `}}`
			got := review(t, web.URL, components.VMICreateValidatePath, spec)
			if got.Allowed != (row.refusal == "") {
				t.Fatalf("allowed: %v (%v)", got.Allowed, got.Result)
			}
			if got.Result != nil && got.Result.Message != row.refusal {
				t.Errorf("refused with %q, not %q", got.Result.Message, row.refusal)
			}
		})
	}
}

func TestTheMutatorPatchesTheWholeSpec(t *testing.T) {
	_, web := start(t, gateOn)
	got := review(t, web.URL, components.VMIMutatePath, `{"domain":{"devices":{}}}`)
	if !got.Allowed || !strings.Contains(string(got.Patch), `"path":"/spec"`) {
		t.Errorf("no patch of the spec: %+v", got)
	}
}

func TestTheConfigurationCanBeReplaced(t *testing.T) {
	s, web := start(t, gateOff)
	for _, row := range []struct {
		body   string
		status int
		on     bool
	}{
		{gateOn, http.StatusNoContent, true},
		{`{"spec":{"configurations":{}}}`, http.StatusUnprocessableEntity, true},
		{`{"spec":{"configuration":{"imagePullPolicy":"Sometimes"}}}`, http.StatusUnprocessableEntity, true},
		{`{"kind":"Pod"}`, http.StatusUnprocessableEntity, true},
		{gateOff, http.StatusNoContent, false},
	} {
		request, err := http.NewRequest(http.MethodPut, web.URL+"/config", strings.NewReader(row.body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = got.Body.Close()
		if got.StatusCode != row.status {
			t.Errorf("%s: answered %d, not %d", row.body, got.StatusCode, row.status)
		}
		if on := s.config.current().WorkloadEncryptionSEVEnabled(); on != row.on {
			t.Errorf("after %s the gate is %v", row.body, on)
		}
	}
}

func TestOnlyThisMachineMayReplaceTheConfiguration(t *testing.T) {
	s, _ := start(t, gateOn)
	for from, status := range map[string]int{
		"192.0.2.1:1000": http.StatusForbidden, "127.0.0.1:1000": http.StatusOK, "[::1]:1": http.StatusOK,
	} {
		request := httptest.NewRequest(http.MethodGet, "/config", nil)
		request.RemoteAddr = from
		answer := httptest.NewRecorder()
		s.routes().ServeHTTP(answer, request)
		if answer.Code != status {
			t.Errorf("%s was answered %d, not %d", from, answer.Code, status)
		}
	}
}

func TestWebhookConfigurationsNameOnlyWhatIsServed(t *testing.T) {
	mutating, validating := webhookConfigurations(defaultNamespace, "https://127.0.0.1:1", []byte("ca"))
	if mutating.Name != "virt-api-mutator" || validating.Name != "virt-api-validator" {
		t.Errorf("named %s and %s", mutating.Name, validating.Name)
	}
	seen := map[string]bool{}
	for _, webhook := range mutating.Webhooks {
		seen[strings.TrimPrefix(*webhook.ClientConfig.URL, "https://127.0.0.1:1")] = true
		if webhook.ReinvocationPolicy != nil {
			t.Errorf("%s has a reinvocation policy", webhook.Name)
		}
	}
	for _, webhook := range validating.Webhooks {
		seen[strings.TrimPrefix(*webhook.ClientConfig.URL, "https://127.0.0.1:1")] = true
		if webhook.ClientConfig.Service != nil || string(webhook.ClientConfig.CABundle) != "ca" {
			t.Errorf("%s still points at a service", webhook.Name)
		}
	}
	for path := range handlers() {
		if !seen[path] {
			t.Errorf("%s is served, and no webhook names it", path)
		}
		delete(seen, path)
	}
	for path := range seen {
		t.Errorf("%s is named, and not served", path)
	}
}

func TestDefinitionsArePrintedWithTheirSchema(t *testing.T) {
	var out, list bytes.Buffer
	if err := printCRDs([]string{"virtualmachineinstances"}, &out); err != nil {
		t.Fatal(err)
	}
	if err := printCRDs([]string{"-json", "virtualmachineinstances"}, &list); err != nil {
		t.Fatal(err)
	}
	var read struct{ Items []map[string]any }
	if err := json.Unmarshal(list.Bytes(), &read); err != nil || len(read.Items) != 1 {
		t.Errorf("not a list of one: %v", err)
	}
	for _, wanted := range []string{"name: virtualmachineinstances.kubevirt.io", "launchSecurity:"} {
		if !strings.Contains(out.String(), wanted) {
			t.Errorf("no %q", wanted)
		}
	}
	if err := printCRDs([]string{"unheard"}, &out); err == nil {
		t.Error("an unknown resource is not refused")
	}
}
