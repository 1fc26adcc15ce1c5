package kubetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Names of the files with keys and certificates.
const (
	caFile     = "ca.crt"
	certFile   = "server.crt"
	keyFile    = "server.key"
	saFile     = "sa.key"
	tokenFile  = "tokens.csv"
	validHours = 48
)

// writeKeys makes a certificate authority that is forgotten at once, the server's certificate and the key with which
// service account tokens are signed. It returns the authority's certificate.
func writeKeys(dir string) (ca []byte, err error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	caCert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "caracal test"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(validHours * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if ca, err = writeCert(filepath.Join(dir, caFile), caCert, caCert, caKey, caKey); err != nil {
		return nil, err
	}
	key, err := writeKey(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, err
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "kube-apiserver"},
		NotBefore: caCert.NotBefore, NotAfter: caCert.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 96, 0, 1)},
	}
	if _, err := writeCert(filepath.Join(dir, certFile), cert, caCert, key, caKey); err != nil {
		return nil, err
	}
	_, err = writeKey(filepath.Join(dir, saFile))
	return ca, err
}

func writeCert(path string, cert, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, parentKey)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return text, os.WriteFile(path, text, 0o600)
}

func writeKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}
