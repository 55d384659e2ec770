// Command argo-match waits for resources as a resource template of Argo Workflows does. It reads one JSON object per line
// from standard input and prints one word for each: Succeeded or Failed as soon as a condition of the template holds, or
// Running if the template waits on.
//
//	argo-match SUCCESS_CONDITION FAILURE_CONDITION  < resources.json
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"

	"github.com/argoproj/argo-workflows/v3/pkg/apis/workflow/v1alpha1"
	"github.com/argoproj/argo-workflows/v3/workflow/executor"
	"github.com/sirupsen/logrus"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest/fake"
)

func main() {
	log.SetFlags(0)
	logrus.SetOutput(io.Discard)
	if len(os.Args) != 3 {
		log.Fatal("usage: argo-match SUCCESS_CONDITION FAILURE_CONDITION < resources.json")
	}
	// The executor asks again after this time.
	if err := os.Setenv("RESOURCE_STATE_CHECK_INTERVAL", "1ms"); err != nil {
		log.Fatal(err)
	}
	template := v1alpha1.Template{Resource: &v1alpha1.ResourceTemplate{
		SuccessCondition: os.Args[1],
		FailureCondition: os.Args[2],
	}}
	in := json.NewDecoder(os.Stdin)
	for {
		var object json.RawMessage
		if err := in.Decode(&object); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			log.Fatalf("argo-match: not JSON: %v", err)
		}
		fmt.Println(wait(template, object))
	}
}

// wait answers the executor's requests with the object, and cancels it when it asks again.
func wait(template v1alpha1.Template, object []byte) string {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	asked := false
	client := fake.CreateHTTPClient(func(*http.Request) (*http.Response, error) {
		if asked {
			cancel()
		}
		asked = true
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(object))}, nil
	})
	we := executor.WorkflowExecutor{
		Template:   template,
		RESTClient: &fake.RESTClient{Client: client, NegotiatedSerializer: scheme.Codecs},
	}
	err := we.WaitResource(ctx, "", "", "/resource")
	switch {
	case ctx.Err() != nil:
		return "Running"
	case err != nil:
		return "Failed"
	}
	return "Succeeded"
}
