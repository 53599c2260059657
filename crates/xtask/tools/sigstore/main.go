// Command sigstore judges Sigstore bundles by sigstore-go, the library that cosign's verify-blob-attestation calls: signed by a key
// that the caller trusts, about an artifact that the caller has. No transparency log and no timestamp are asked for, as with cosign's
// --key and --insecure-ignore-tlog.
//
//	sigstore KEY ARTIFACT BUNDLE...
//
// One line for each bundle on stdout: "accepted PREDICATE-TYPE", or "refused WHY".
package main

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sigstore:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) < 3 {
		return errors.New("say KEY ARTIFACT BUNDLE...")
	}
	verifier, err := trusting(arguments[0])
	if err != nil {
		return err
	}
	artifact, err := os.ReadFile(arguments[1])
	if err != nil {
		return err
	}
	for _, path := range arguments[2:] {
		kind, err := judge(verifier, artifact, path)
		if err != nil {
			fmt.Println("refused", strings.ReplaceAll(err.Error(), "\n", " "))
		} else {
			fmt.Println("accepted", kind)
		}
	}
	return nil
}

// trusting is a verifier that trusts one key, at all times and whatever a bundle calls it.
func trusting(path string) (*verify.Verifier, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := cryptoutils.UnmarshalPEMToPublicKey(pem)
	if err != nil {
		return nil, err
	}
	of, err := signature.LoadVerifier(key, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	always := root.NewExpiringKey(of, time.Time{}, time.Time{})
	material := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) { return always, nil })
	return verify.NewVerifier(material, verify.WithNoObserverTimestamps())
}

func judge(verifier *verify.Verifier, artifact []byte, path string) (string, error) {
	read, err := bundle.LoadJSONFromPath(path)
	if err != nil {
		return "", err
	}
	policy := verify.NewPolicy(verify.WithArtifact(bytes.NewReader(artifact)), verify.WithKey())
	result, err := verifier.Verify(read, policy)
	if err != nil {
		return "", err
	}
	if result.Statement == nil {
		return "", errors.New("it holds no statement")
	}
	return result.Statement.PredicateType, nil
}
