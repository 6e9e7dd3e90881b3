# The tutorial's first relay, as a script: a relay, two clients, one word, the ledger.
set -eu
triorelay serve --unix server_socket --tcp 127.0.0.1:0 &
relay=$!
until triorelay who 2>/dev/null; do sleep 0.1; done

triorelay receive --id B --count 5 --format raw &
triorelay send --wait 10 B hello
wait $!

triorelay status
kill "$relay"
wait "$relay"
