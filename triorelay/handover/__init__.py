# A relay that hands over everything to its successor. Read in this order:
#   _conversation  what the two processes say to each other, and what holds when either fails
#   _state         the state of a relay as bytes
#   _descriptors   how descriptors get from one to the other
#   _drive         the conversation over a real connection
#   _predecessor   the old relay's part
#   _successor     the new one's

from ._predecessor import Handover as Handover
from ._successor import Succession as Succession
from ._successor import inherit as inherit
