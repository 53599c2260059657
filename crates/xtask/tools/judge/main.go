// Command judge says what GitOps clients make of objects, by code of theirs: kstatus (Flux and Helm), the evaluator of Flux's
// healthCheckExprs, and the Lua interpreter that Argo CD runs health checks in.
//
//	judge kstatus      objects as JSON lines on stdin
//	judge cel FILE     the same, by the healthCheckExprs of the Flux Kustomization in FILE
//	judge lua FOLDER   the same, by FOLDER/KIND/health.lua
//
// One line of JSON for each object on stdout: {"status": ..., "message": ...}.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// verdict is what a client would show.
type verdict struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

type judge func(object *unstructured.Unstructured) (verdict, error)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "judge:", err)
		os.Exit(1)
	}
}

func run(arguments []string, in io.Reader, out io.Writer) error {
	judge, err := chosen(arguments)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	answers := json.NewEncoder(out)
	for number := 1; lines.Scan(); number++ {
		// Integers stay integers, as they do in a client.
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(lines.Bytes()); err != nil {
			return fmt.Errorf("line %d is no object: %w", number, err)
		}
		verdict, err := judge(object)
		if err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		if err := answers.Encode(verdict); err != nil {
			return err
		}
	}
	return lines.Err()
}

func chosen(arguments []string) (judge, error) {
	switch {
	case slices.Equal(arguments, []string{"kstatus"}):
		return byKstatus, nil
	case len(arguments) == 2 && arguments[0] == "cel":
		return byExpressions(arguments[1])
	case len(arguments) == 2 && arguments[0] == "lua":
		return byScripts(arguments[1]), nil
	}
	return nil, errors.New("say kstatus, cel FILE, or lua FOLDER")
}

func byKstatus(object *unstructured.Unstructured) (verdict, error) {
	result, err := status.Compute(object)
	if err != nil {
		return verdict{}, err
	}
	return verdict{string(result.Status), result.Message}, nil
}

// === Flux ===

// kustomization is the part of Flux's kind that is read here.
type kustomization struct {
	Spec struct {
		HealthCheckExprs []kustomize.CustomHealthCheck `json:"healthCheckExprs"`
	} `json:"spec"`
}

func byExpressions(file string) (judge, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var read kustomization
	if err := yaml.Unmarshal(text, &read); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	evaluators := map[string]*cel.StatusEvaluator{}
	for _, check := range read.Spec.HealthCheckExprs {
		evaluator, err := cel.NewStatusEvaluator(&check.HealthCheckExpressions)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", file, check.Kind, err)
		}
		evaluators[check.APIVersion+"/"+check.Kind] = evaluator
	}
	return func(object *unstructured.Unstructured) (verdict, error) {
		kind := object.GetAPIVersion() + "/" + object.GetKind()
		evaluator, ok := evaluators[kind]
		if !ok {
			return verdict{}, fmt.Errorf("%s has no expressions for %s", file, kind)
		}
		result, err := evaluator.Evaluate(context.Background(), object)
		if err != nil {
			// What Flux's reader makes of it: neither healthy nor failed.
			return verdict{string(status.UnknownStatus), err.Error()}, nil
		}
		return verdict{string(result.Status), result.Message}, nil
	}, nil
}

// === Argo CD ===

// The words that Argo CD takes from a script; any other makes the health Unknown.
var words = []string{"Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown"}

func byScripts(folder string) judge {
	return func(object *unstructured.Unstructured) (verdict, error) {
		file := filepath.Join(folder, object.GetKind(), "health.lua")
		script, err := os.ReadFile(file)
		if err != nil {
			return verdict{}, err
		}
		answer, err := interpret(string(script), object.Object)
		if err != nil {
			return verdict{}, fmt.Errorf("%s: %w", file, err)
		}
		return answer, nil
	}
}

// interpret runs script as Argo CD does: three libraries, one second, the object as the global obj.
func interpret(script string, object map[string]any) (verdict, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable,
	} {
		if err := state.CallByParam(lua.P{Fn: state.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			return verdict{}, err
		}
	}
	limit, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state.SetContext(limit)
	state.SetGlobal("obj", value(state, object))
	if err := state.DoString(script); err != nil {
		return verdict{}, err
	}
	answer, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return verdict{}, fmt.Errorf("the script returned %s, not a table", state.Get(-1).Type())
	}
	said := verdict{lua.LVAsString(answer.RawGetString("status")), lua.LVAsString(answer.RawGetString("message"))}
	if !slices.Contains(words, said.Status) {
		return verdict{}, fmt.Errorf("the script returned the status %q", said.Status)
	}
	return said, nil
}

// value is a JSON value as Lua has it. A null is nothing, and numbers are floating.
func value(state *lua.LState, from any) lua.LValue {
	switch from := from.(type) {
	case bool:
		return lua.LBool(from)
	case int64:
		return lua.LNumber(from)
	case float64:
		return lua.LNumber(from)
	case string:
		return lua.LString(from)
	case []any:
		list := state.NewTable()
		for _, item := range from {
			list.Append(value(state, item))
		}
		return list
	case map[string]any:
		table := state.NewTable()
		for name, item := range from {
			table.RawSetString(name, value(state, item))
		}
		return table
	}
	return lua.LNil
}
