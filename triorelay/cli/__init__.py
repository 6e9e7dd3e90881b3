# The commands. Whatever a command needs beyond click is imported when it runs, so that `--help` is quick.
#   _entry       the program itself
#   _main        the group: which commands there are, and where
#   _errors      from any error to one line and an exit code
#   _options     parameter types that several commands share
#   _serve       `triorelay serve`: its options
#   _settings    the one list of what can be set
#   _sources     a setting from command line, environment or file
#   _relay_config  from settings to what the relay takes
#   _admin_config  the same for its admin endpoint (_cluster_config: for its part in a realm)
#   _check       `check`
#   _run_relay   a relay under signals, from its ready line to its ledger
#   _systemd     sockets from systemd, and telling it how the relay is
#   _logging     log lines as text and as JSON (_log_writer: written without waiting)
#   _run         running the rest under Trio, which Ctrl-C may interrupt
#   _client      `send`, `receive`, `who`, `ping` (_client_options: which relay, and as whom)
#   _pipe        `pipe`
#   _bench       `bench`
#   _completion  what the shell offers for an id
#   _admin       `status`, `monitor`, `close`, `health`
#   _top         `triorelay top` (_top_screen: what it shows)
#   _status      a relay's status, and what changed since the last (_status_view: as it looks in a terminal)
#   _admin_client  asking a relay's admin endpoint

from ._entry import main as main
