// Command argocd-lua runs a customization of Argo CD on Argo CD's own Lua engine.
//
//	argocd-lua health SCRIPT    < resource.yaml    prints the health as JSON
//	argocd-lua discover SCRIPT  < resource.yaml    prints the offered actions as JSON
//	argocd-lua action SCRIPT    < resource.yaml    prints the resources that the action makes or patches
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/argoproj/argo-cd/v3/util/lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: argocd-lua health|discover|action SCRIPT < resource.yaml")
	}
	script, err := os.ReadFile(os.Args[2])
	check(err)
	input, err := io.ReadAll(os.Stdin)
	check(err)
	asJSON, err := yaml.YAMLToJSON(input)
	check(err)
	object := &unstructured.Unstructured{}
	check(object.UnmarshalJSON(asJSON))
	result, err := run(os.Args[1], object, string(script))
	check(err)
	check(json.NewEncoder(os.Stdout).Encode(result))
}

func run(mode string, object *unstructured.Unstructured, script string) (any, error) {
	vm := lua.VM{}
	switch mode {
	case "health":
		return vm.ExecuteHealthLua(object, script)
	case "discover":
		return vm.ExecuteResourceActionDiscovery(object, []string{script})
	case "action":
		return vm.ExecuteResourceAction(object, script, nil)
	}
	return nil, fmt.Errorf("no mode %q", mode)
}

func check(err error) {
	if err != nil {
		log.Fatalf("argocd-lua: %v", err)
	}
}
