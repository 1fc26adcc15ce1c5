package kube

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/caracal-net/caracal/internal/datastore"
)

// What only Kubernetes' API can answer or be told about a node; startup.Cluster says what the methods promise.

// InternalAddrs returns the addresses of type InternalIP of a Node, in the order in which the kubelet reports them.
func (s *Store) InternalAddrs(ctx context.Context, node string) ([]netip.Addr, error) {
	u, err := s.wholeNode(ctx, node)
	if err != nil {
		return nil, err
	}
	list, _, err := unstructured.NestedSlice(u.Object, "status", "addresses")
	if err != nil {
		return nil, fmt.Errorf("addresses of Node %s: %w", node, err)
	}
	var addrs []netip.Addr
	for _, entry := range list {
		fields, _ := entry.(map[string]any)
		if fields["type"] != "InternalIP" {
			continue
		}
		text, _ := fields["address"].(string)
		if a, err := netip.ParseAddr(text); err == nil {
			addrs = append(addrs, a)
		}
	}
	return addrs, nil
}

// wholeNode reads a Node with its status, which nothing else here asks for.
func (s *Store) wholeNode(ctx context.Context, node string) (*unstructured.Unstructured, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	u, err := s.objects.Resource(nodeResource).Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return nil, fault("get", datastore.Key{Kind: "Node", Name: node}, err)
	}
	return u, nil
}

// ConfigMap returns the data of a ConfigMap.
func (s *Store) ConfigMap(ctx context.Context, namespace, name string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	u, err := s.objects.Resource(configMapResource).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fault("get", datastore.Key{Kind: "ConfigMap", Name: namespace + "/" + name}, err)
	}
	data, _, err := unstructured.NestedStringMap(u.Object, "data")
	if err != nil {
		return nil, fmt.Errorf("ConfigMap %s/%s: %w", namespace, name, err)
	}
	return data, nil
}

// EnsureClusterInformation makes the ClusterInformation default, or adds what is missing of it. Two nodes may do so at once: who loses a
// race looks again.
func (s *Store) EnsureClusterInformation(ctx context.Context, clusterType string) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	f, err := s.form(ctx)
	if err != nil {
		return fmt.Errorf("ensure ClusterInformation: %w", err)
	}
	c := s.objects.Resource(schema.GroupVersionResource{Group: f.group, Version: f.version, Resource: "clusterinformations"})
	for {
		u, err := c.Get(ctx, "default", metav1.GetOptions{})
		absent := absent(err)
		if absent {
			u = &unstructured.Unstructured{Object: map[string]any{"apiVersion": f.String(), "kind": "ClusterInformation"}}
			u.SetName("default")
		} else if err != nil {
			return fmt.Errorf("ensure ClusterInformation: %w", err)
		}
		switch changed, serr := inform(u, clusterType); {
		case serr != nil:
			return fmt.Errorf("ensure ClusterInformation: %w", serr)
		case absent:
			_, err = c.Create(ctx, u, metav1.CreateOptions{})
		case changed:
			_, err = c.Update(ctx, u, metav1.UpdateOptions{})
		default:
			return nil
		}
		if err == nil {
			return nil
		}
		if !apierrors.IsAlreadyExists(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("ensure ClusterInformation: %w", err)
		}
	}
}

// inform adds what is missing of a ClusterInformation and reports whether anything was. Words of its clusterType stay, and so does
// datastoreReady: false, which Calico's migration of datastores sets.
func inform(u *unstructured.Unstructured, clusterType string) (changed bool, err error) {
	spec, _, err := unstructured.NestedMap(u.Object, "spec")
	if err != nil {
		return false, err
	}
	if spec == nil {
		spec = map[string]any{}
	}
	if guid, _ := spec["clusterGUID"].(string); guid == "" {
		var id [16]byte
		if _, err := rand.Read(id[:]); err != nil {
			return false, err
		}
		spec["clusterGUID"], changed = hex.EncodeToString(id[:]), true // Calico's form: no dashes
	}
	if _, said := spec["datastoreReady"]; !said {
		spec["datastoreReady"], changed = true, true
	}
	have, _ := spec["clusterType"].(string)
	words := strings.FieldsFunc(have, func(r rune) bool { return r == ',' })
	for _, w := range strings.FieldsFunc(clusterType, func(r rune) bool { return r == ',' }) {
		if !slices.Contains(words, w) {
			words = append(words, w)
			spec["clusterType"], changed = strings.Join(words, ","), true
		}
	}
	return changed, unstructured.SetNestedMap(u.Object, spec, "spec")
}

// SetNetworkUnavailable writes the condition by a strategic merge patch of the status, which leaves the kubelet's conditions alone.
func (s *Store) SetNetworkUnavailable(ctx context.Context, node string, unavailable bool, reason, message string) error {
	u, err := s.wholeNode(ctx, node)
	if err != nil {
		return err
	}
	status := map[bool]string{true: "True", false: "False"}[unavailable]
	const condition = "NetworkUnavailable"
	list, _, err := unstructured.NestedSlice(u.Object, "status", "conditions")
	if err != nil {
		return fmt.Errorf("conditions of Node %s: %w", node, err)
	}
	now := time.Now().UTC().Format(time.RFC3339)
	since := now
	for _, entry := range list {
		fields, _ := entry.(map[string]any)
		if fields["type"] != condition {
			continue
		}
		if fields["status"] == status && fields["reason"] == reason {
			return nil
		}
		if at, ok := fields["lastTransitionTime"].(string); ok && fields["status"] == status {
			since = at
		}
	}
	body, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []any{map[string]any{
		"type": condition, "status": status, "reason": reason, "message": message, "lastTransitionTime": since, "lastHeartbeatTime": now,
	}}}})
	if err != nil {
		return fmt.Errorf("condition of Node %s: %w", node, err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	_, err = s.metas.Resource(nodeResource).Patch(ctx, node, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
	if err != nil {
		return fault("patch", datastore.Key{Kind: "Node", Name: node}, err)
	}
	return nil
}
