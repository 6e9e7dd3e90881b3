# HTTP between two hosts that both reach a relay, but not each other. TRIORELAY_RELAY says where it is.
#   sh http_through_pipe.sh serve PORT      where the server is, on this port: brings one client's connection to it
#   sh http_through_pipe.sh get PATH        anywhere else
# The same way goes ssh: ssh -o ProxyCommand='triorelay pipe --id C S' HOST
set -eu
case $1 in
serve)
    back=$(mktemp -u)
    mkfifo "$back"
    trap 'rm -f "$back"' EXIT
    triorelay pipe --id S C <"$back" | nc 127.0.0.1 "$2" >"$back"
    ;;
get)
    printf 'GET %s HTTP/1.0\r\n\r\n' "$2" | triorelay pipe --id C S
    ;;
esac
