triorelay receive --id B --count 5 &
triorelay send --id A --wait 10 B hello
triorelay status
