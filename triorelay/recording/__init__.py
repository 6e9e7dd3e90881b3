# Recordings: what went through a relay, kept in files that other tools open. No sockets and no clock. Read in this
# order:
#   _runs       frames as they were routed, and how they travel from the relay to a recording program
#   _layout     the channels of a recording: their topics, and what they say of themselves
#   _messages   whole messages in the runs of each pair; JSON among them
#   _writer     a recording as an MCAP file;  _reader  the way back
#   _ring       the last frames, in bounded memory;  _dump  the plainest file of them
#   _pcapng     runs as packets for Wireshark
# `_writer` and `_reader` need the package mcap (the extra `record`), so only the code that uses them imports them.

from ._dump import dump as dump
from ._ring import Ring as Ring
from ._ring import Snapshot as Snapshot
from ._ring import runs_in as runs_in
from ._runs import Entry as Entry
from ._runs import Lost as Lost
from ._runs import Run as Run
from ._runs import RunReader as RunReader
from ._runs import pack_lost as pack_lost
from ._runs import pack_run as pack_run
