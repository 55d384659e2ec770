// Command kstatus computes the status of resources as Helm's --wait and Flux do. It reads one JSON object per line from
// standard input and prints one line of JSON for each, with its status and message. The optional argument is an element of
// a Kustomization's healthCheckExprs as JSON; then it evaluates these expressions, as Flux does.
package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type line struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

func main() {
	log.SetFlags(0)
	compute := status.Compute
	if len(os.Args) > 1 {
		compute = byExpressions(os.Args[1])
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		object := map[string]any{}
		if err := in.Decode(&object); err == io.EOF {
			return
		} else if err != nil {
			log.Fatalf("kstatus: not JSON: %v", err)
		}
		result, err := compute(&unstructured.Unstructured{Object: normalised(object)})
		if err != nil {
			log.Fatalf("kstatus: %v", err)
		}
		if err := out.Encode(line{string(result.Status), result.Message}); err != nil {
			log.Fatal(err)
		}
	}
}

func byExpressions(text string) func(*unstructured.Unstructured) (*status.Result, error) {
	var check kustomize.CustomHealthCheck
	if err := json.Unmarshal([]byte(text), &check); err != nil {
		log.Fatalf("kstatus: invalid healthCheckExprs: %v", err)
	}
	evaluator, err := cel.NewStatusEvaluator(&check.HealthCheckExpressions)
	if err != nil {
		log.Fatalf("kstatus: %v", err)
	}
	return func(object *unstructured.Unstructured) (*status.Result, error) {
		return evaluator.Evaluate(context.Background(), object)
	}
}

// normalised converts whole numbers to int64, as the API machinery's decoder does.
func normalised(object map[string]any) map[string]any {
	for key, value := range object {
		object[key] = whole(value)
	}
	return object
}

func whole(value any) any {
	switch value := value.(type) {
	case float64:
		if value == float64(int64(value)) {
			return int64(value)
		}
	case map[string]any:
		return normalised(value)
	case []any:
		for i := range value {
			value[i] = whole(value[i])
		}
	}
	return value
}
