# Certificates from your own authority: for a relay that clients reach as relay.example or 127.0.0.1, and for a client.
set -eu
docker/make-certs certificates relay relay.example localhost 127.0.0.1
docker/make-certs certificates client arm.example
openssl verify -CAfile certificates/ca.pem certificates/relay.pem certificates/arm.example.pem
