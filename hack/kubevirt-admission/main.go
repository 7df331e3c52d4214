package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
)

const usage = `usage: kubevirt-admission COMMAND [ARGUMENTS]

  crds [PLURAL...]   print KubeVirt's custom resource definitions (of these resources)
  webhooks           print KubeVirt's webhook configurations, pointed at a URL
  serve              answer admission reviews over HTTPS until SIGTERM or the parent's end
  version            print the version of KubeVirt that is linked

"kubevirt-admission COMMAND -h" lists the options of a command.
`

// modulePath is the module of which version tells the version.
const modulePath = "kubevirt.io/kubevirt"

func main() {
	err := run(os.Args[1:], os.Stdin, os.Stdout)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	default:
		fmt.Fprintf(os.Stderr, "kubevirt-admission: %v\n", err)
		os.Exit(1)
	}
}

// run carries out one command.
func run(args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) == 0 {
		return errors.New("no command\n" + usage)
	}
	command, rest := args[0], args[1:]
	switch command {
	case "crds":
		return printCRDs(rest, stdout)
	case "webhooks":
		return printWebhooks(rest, stdout)
	case "serve":
		return serve(rest, stdin, stdout)
	case "version":
		_, err := fmt.Fprintln(stdout, linkedVersion())
		return err
	case "help", "-h", "--help":
		_, err := io.WriteString(stdout, usage)
		return err
	}
	return fmt.Errorf("no command %q\n%s", command, usage)
}

// linkedVersion returns the version of the KubeVirt module, such as v1.9.0.
func linkedVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, module := range info.Deps {
		if module.Path == modulePath {
			return module.Version
		}
	}
	return "unknown"
}
