# The commands. Each imports what it needs beyond click when it runs, so that `--help` is fast.
#   _entry       the program itself
#   _main        the group: which commands there are, and where
#   _errors      from any error to one line and an exit code
#   _options     parameter types that several commands share, and running their work under Trio
#   _serve       `triorelay serve`: its options
#   _settings    the one list of what can be set
#   _sources     a setting from command line, environment or file
#   _config      from settings to what the relay, its admin endpoint and its part in a realm take
#   _effect      settings that cannot take effect, and those whose absence would open a door
#   _check       `check`
#   _run_relay   a relay under signals, from its ready line to its ledger (_terminal: one that closes)
#   _process     what its process asks of memory management
#   _flight      the flight recorder
#   _systemd     sockets from systemd, and telling it how the relay is
#   _logging     log lines as text and as JSON (_log_writer: written without waiting)
#   _client      `send`, `who`, `ping` (_client_options: which relay, which id, and completion)
#   _receive     `receive`
#   _pipe        `pipe`
#   _frame_view  frames and messages as lines
#   _bench       `bench`
#   _health      `health` (_probe: the question, which must cost next to nothing)
#   _admin       `status`, `top`, `monitor`, `close` (_top_screen: what `top` shows)
#   _record      `record`, `show` (_follow: what is routed; _recorder: into a file; _recording: opening one)
#   _capture     `monitor --pcapng`
#   _play        `play` (_player: at the right time)
#   _status      a relay's status, and what changed since the last (_status_view: as it looks in a terminal)
#   _admin_client  asking a relay's admin endpoint

from ._entry import main as main
