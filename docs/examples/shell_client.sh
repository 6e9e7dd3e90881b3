# A client for any shell: becomes A (the bytes A and 0x80), sends 1 to B, and prints what arrives within a second.
#   sh shell_client.sh nc -N 127.0.0.1 9734         OpenBSD's nc; without -N it runs until the relay ends
#   sh shell_client.sh busybox nc 127.0.0.1 9734
#   sh shell_client.sh socat - TCP:127.0.0.1:9734
{ printf 'A\200B1'; sleep 1; } | "$@"
