# A relay runs in this directory. Everything that it relays goes into run.mcap.
triorelay record run.mcap 2>record.log &
recorder=$!
until grep -q '^recording to' record.log; do sleep 0.1; done

# Two clients talk.
triorelay receive --id B --count 5 >then.txt &
receiver=$!
triorelay send --id A --wait 10 B hello
wait $receiver

# The recording ends, and is printed.
kill $recorder
wait $recorder
triorelay show run.mcap

# It is sent again, at the time at which it came, by a client that is A again.
triorelay receive --id B --count 5 >again.txt &
receiver=$!
until triorelay who B >/dev/null; do sleep 0.1; done
triorelay play run.mcap
wait $receiver
cmp then.txt again.txt && echo "B got the same again"
