# HTTP between two hosts that both reach a relay, but not each other. TRIORELAY_RELAY names the relay.
#   sh http_through_pipe.sh serve PORT      on the server's host: connects one client to the server on this port
#   sh http_through_pipe.sh get PATH        on any other host
# ssh works the same way: ssh -o ProxyCommand='triorelay pipe --id C S' HOST
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
