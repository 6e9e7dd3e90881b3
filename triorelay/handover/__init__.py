# A relay that hands over everything to its successor. Read in this order:
#   _conversation  what the two processes say to each other, and what holds when either fails
#   _descriptors   how descriptors get from one to the other
#   _state         the state of a relay as bytes
#   _drive         the conversation over a real connection
