// Command dashboard reads a Grafana dashboard as JSON from stdin by the types that Grafana generates from its own schema: a field that
// does not exist, a value of another type, and a rule that does not hold are errors. Each is one line on stderr.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	if err := run(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(in io.Reader) error {
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	// Panels and queries have types of their own, one for each plugin.
	plugins.RegisterDefaultPlugins()
	read := dashboard.Dashboard{}
	if err := found(read.UnmarshalJSONStrict(text)); err != nil {
		return err
	}
	if err := found(read.Validate()); err != nil {
		return err
	}
	return fieldConfigs(text)
}

// fieldConfigs reads what the strict reader of panels takes as it comes.
func fieldConfigs(text []byte) error {
	var read struct {
		Panels []struct {
			Title       string          `json:"title"`
			FieldConfig json.RawMessage `json:"fieldConfig"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(text, &read); err != nil {
		return err
	}
	for _, panel := range read.Panels {
		source := dashboard.FieldConfigSource{}
		if err := found(source.UnmarshalJSONStrict(panel.FieldConfig)); err != nil {
			return fmt.Errorf("panel %q: %w", panel.Title, err)
		}
	}
	return nil
}

// found is err, unless it is a list of errors with nothing in it.
func found(err error) error {
	var list cog.BuildErrors
	if errors.As(err, &list) && len(list) == 0 {
		return nil
	}
	return err
}
