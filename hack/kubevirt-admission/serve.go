package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"kubevirt.io/client-go/log"
)

const (
	// bodyLimit is generous: the API server takes objects of up to 3 MiB, and a review has two.
	bodyLimit     = 16 << 20
	parentPeriod  = 200 * time.Millisecond
	drainTime     = 5 * time.Second
	headerTimeout = 10 * time.Second
)

// serveOptions are the options of the command "serve".
type serveOptions struct {
	kubevirt, kubeconfig, namespace string
	cert, key, listen, portFile     string
}

// parseServe reads the options of the command "serve".
func parseServe(args []string) (serveOptions, error) {
	var o serveOptions
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	flags.StringVar(&o.kubevirt, "kubevirt-cr", "",
		"`FILE` with the KubeVirt resource whose configuration is in force, - for standard input; "+
			"without it the cluster's own, or an empty one without a cluster")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "",
		"`FILE` that leads to a cluster to look things up in; without it the cluster is empty")
	flags.StringVar(&o.namespace, "namespace", defaultNamespace, "the `NAMESPACE` of KubeVirt")
	flags.StringVar(&o.cert, "tls-cert", "", "`FILE` with the server's PEM certificate chain")
	flags.StringVar(&o.key, "tls-key", "", "`FILE` with its PEM key")
	flags.StringVar(&o.listen, "listen", "127.0.0.1:0", "`ADDRESS` to listen on")
	flags.StringVar(&o.portFile, "port-file", "", "`FILE` to write the port to when ready")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 || o.cert == "" || o.key == "" {
		return o, errors.New("serve needs --tls-cert FILE and --tls-key FILE, and no argument")
	}
	return o, nil
}

// serve answers admission reviews until a signal or the end of the parent.
func serve(args []string, stdin io.Reader, stdout io.Writer) error {
	parent := os.Getppid()
	options, err := parseServe(args)
	if err != nil {
		return err
	}
	log.InitializeLogging("kubevirt-admission")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go stopWith(ctx, parent, stop)

	certificate, err := tls.LoadX509KeyPair(options.cert, options.key)
	if err != nil {
		return err
	}
	s, err := options.server(ctx, stdin)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", options.listen)
	if err != nil {
		return err
	}
	port := listener.Addr().(*net.TCPAddr).Port
	web := &http.Server{
		Handler:           http.MaxBytesHandler(s.routes(), bodyLimit),
		ReadHeaderTimeout: headerTimeout,
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12,
		},
	}
	if err := announce(options, port, stdout); err != nil {
		return err
	}
	go func() {
		<-ctx.Done()
		limited, cancel := context.WithTimeout(context.Background(), drainTime)
		defer cancel()
		_ = web.Shutdown(limited)
	}()
	if err := web.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// server makes the server that the options ask for.
func (o serveOptions) server(ctx context.Context, stdin io.Reader) (*server, error) {
	var s *server
	var err error
	if o.kubeconfig != "" {
		s, err = withCluster(ctx, o.kubeconfig, o.namespace, o.kubevirt == "")
	} else {
		s, err = withoutCluster(o.namespace)
	}
	if err != nil || s.config.watched {
		return s, err
	}
	var document []byte
	switch o.kubevirt {
	case "":
	case "-":
		document, err = io.ReadAll(io.LimitReader(stdin, bodyLimit))
	default:
		document, err = os.ReadFile(o.kubevirt)
	}
	if err != nil {
		return nil, err
	}
	return s, s.config.replace(document)
}

// announce tells the port, to the file first: whoever reads the line may read the file.
func announce(o serveOptions, port int, stdout io.Writer) error {
	if o.portFile != "" {
		temporary, err := os.CreateTemp(filepath.Dir(o.portFile), ".port")
		if err != nil {
			return err
		}
		_, err = temporary.WriteString(strconv.Itoa(port) + "\n")
		if err := errors.Join(err, temporary.Close()); err != nil {
			return err
		}
		if err := os.Rename(temporary.Name(), o.portFile); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(stdout, port)
	return err
}

// stopWith calls stop when the parent has ended. A process whose parent is gone has another one.
// (The kernel's own signal for it, PR_SET_PDEATHSIG, comes when the thread that started the process
// ends, which is too early for a parent with threads.)
func stopWith(ctx context.Context, parent int, stop func()) {
	ticker := time.NewTicker(parentPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if os.Getppid() != parent {
				stop()
				return
			}
		}
	}
}

// routes maps virt-api's paths, and this program's own /config and /healthz.
func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	for path, answer := range handlers() {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) { answer(s, w, r) })
	}
	mux.HandleFunc("GET /config", loopbackOnly(s.getConfig))
	mux.HandleFunc("PUT /config", loopbackOnly(s.putConfig))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n")
	})
	return mux
}

// getConfig tells the configuration in force, KubeVirt's defaults filled in.
func (s *server) getConfig(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s.config.current().GetConfig())
}

// putConfig replaces the configuration by that of a KubeVirt resource, for requests that come after
// the answer.
func (s *server) putConfig(w http.ResponseWriter, r *http.Request) {
	document, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := s.config.replace(document); err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// loopbackOnly refuses whoever is not on this machine.
func loopbackOnly(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !from.Addr().Unmap().IsLoopback() {
			http.Error(w, "only from this machine", http.StatusForbidden)
			return
		}
		next(w, r)
	}
}
