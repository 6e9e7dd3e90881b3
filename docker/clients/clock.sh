#!/bin/sh
# Tells another client the time each second, and prints what that one tells, as long as both are there.
#
#   clock.sh ID PEER [OPTION OF TRIORELAY…]
id=$1 peer=$2
shift 2

while :; do
    while date +"%T, says $id"; do sleep 1; done | triorelay pipe "$peer" --id "$id" "$@"
    sleep 1
done
