package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/caracal-net/caracal/internal/install"
)

// install is the branch of commands that ask no daemon: they only turn one text into another.
func (c *command) install() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "install",
		Short: "What to apply to a cluster",
		Args:  exactly(),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.installRender())
	return cmd
}

func (c *command) installRender() *cobra.Command {
	var file string
	o := install.DefaultOptions()
	cmd := &cobra.Command{
		Use:   "render -f FILE",
		Short: "Print what to apply for an Installation of Calico's operator: pools, ConfigMap, environment of the DaemonSet",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return usageError{errors.New("-f is missing: name the file with the Installation, or - for standard input")}
			}
			text, err := readFile(file, cmd.InOrStdin())
			if err != nil {
				return err
			}
			in, err := install.Read(text)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			out, err := in.Render(o)
			if err != nil {
				return err
			}
			_, err = c.env.Out.Write(out)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVarP(&file, "filename", "f", "", "file with the Installation, - for standard input")
	f.StringVar(&o.Namespace, "namespace", o.Namespace, "namespace of the ConfigMap and of the DaemonSet")
	f.StringVar(&o.DaemonSet, "daemonset", o.DaemonSet, "name of the DaemonSet")
	f.StringVar(&o.Container, "container", o.Container, "name of its container")
	return cmd
}

func readFile(name string, stdin io.Reader) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(name)
}
