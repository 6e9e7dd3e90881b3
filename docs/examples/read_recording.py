"""Print the messages in JSON that are in a recording, with the package mcap alone: python read_recording.py run.mcap"""

import json
import sys

from mcap.reader import make_reader

with open(sys.argv[1], "rb") as file:
    for _, channel, message in make_reader(file).iter_messages():
        if channel.metadata["kind"] == "json":
            print(f"{message.log_time / 1e9:.3f} {channel.topic} {json.loads(message.data)}")
