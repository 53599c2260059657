// Judges manifests by the types of one release of Kubernetes: every field must exist there, once, with its type.
//
// It reads a JSON list of objects from standard input and writes one line per object: "ok", "foreign" (a kind that is not
// Kubernetes' own) or "error" with the reason. The release is that of the modules beside this file.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	admissionregistration "k8s.io/api/admissionregistration/v1"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	scheduling "k8s.io/api/scheduling/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	strict "k8s.io/apimachinery/pkg/runtime/serializer/json"
)

// Groups that no release of Kubernetes brings.
var foreign = map[string]bool{"requiem.dev": true, "monitoring.coreos.com": true}

func types() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		admissionregistration.AddToScheme, apps.AddToScheme, batch.AddToScheme, coordination.AddToScheme, core.AddToScheme,
		networking.AddToScheme, policy.AddToScheme, rbac.AddToScheme, scheduling.AddToScheme, apiextensions.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	return scheme, nil
}

func judge(decoder runtime.Decoder, object json.RawMessage) (string, error) {
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name         string `json:"name"`
			GenerateName string `json:"generateName"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(object, &head); err != nil {
		return "an object", err
	}
	name := head.Kind + " " + head.Metadata.Name + head.Metadata.GenerateName
	version, err := schema.ParseGroupVersion(head.APIVersion)
	if err != nil {
		return name, err
	}
	if foreign[version.Group] {
		return "foreign\t" + name, nil
	}
	_, _, err = decoder.Decode(object, nil, nil)
	return "ok\t" + name, err
}

// release is the version of k8s.io/api that is built in.
func release() string {
	info, there := debug.ReadBuildInfo()
	if !there {
		return ""
	}
	for _, module := range info.Deps {
		if module.Path == "k8s.io/api" {
			return module.Version
		}
	}
	return ""
}

func run() error {
	scheme, err := types()
	if err != nil {
		return err
	}
	var objects []json.RawMessage
	if err := json.NewDecoder(os.Stdin).Decode(&objects); err != nil {
		return fmt.Errorf("standard input is no JSON list: %w", err)
	}
	decoder := strict.NewSerializerWithOptions(strict.DefaultMetaFactory, scheme, scheme, strict.SerializerOptions{Strict: true})
	fmt.Println("release\t" + release())
	bad := 0
	for _, object := range objects {
		line, err := judge(decoder, object)
		if err != nil {
			bad++
			line = "error\t" + strings.TrimPrefix(line, "ok\t") + ": " + strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Println(line)
	}
	if bad > 0 {
		return fmt.Errorf("%d objects do not fit", bad)
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
