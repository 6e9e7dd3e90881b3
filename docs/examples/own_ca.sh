# Certificates from an authority of one's own: for a relay that clients know as relay.example or 127.0.0.1, and for a client.
set -eu
docker/make-certs certificates relay relay.example localhost 127.0.0.1
docker/make-certs certificates client arm.example
openssl verify -CAfile certificates/ca.pem certificates/relay.pem certificates/arm.example.pem
