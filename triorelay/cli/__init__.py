# The commands. Each is loaded only when it is used, so that `triorelay --help` and completion are fast.
#   _entry       the program itself
#   _main        the group: which commands there are, and where
#   _errors      from any error to one line and an exit code
#   _options     parameter types and options that several commands share, completion, running work under Trio
#   _serve       `triorelay serve`: its options
#   _settings    the one list of what can be set
#   _sources     a setting from command line, environment or file
#   _config      from settings to the configurations of relay, admin endpoint and cluster
#   _effect      refuses settings that cannot take effect, and a reload that lacks a setting which keeps clients out
#   _check       `check`
#   _run_relay   a relay under signals, from its ready line to its ledger
#   _terminal    the terminal that may close
#   _handover    a relay's process between an old relay and a successor
#   _flight      the flight recorder
#   _systemd     sockets from systemd, and reports to it
#   _logging     log lines as text and as JSON (_log_writer: written without waiting)
#   _client      `send`, `who`, `ping`, `bench` (_client_options: which relay, which id, and opening it)
#   _calls       `call`, `answer`
#   _receive     `receive`
#   _pipe        `pipe`
#   _frame_view  frames and messages as lines
#   _admin       `status`, `top`, `monitor`, `close`, `health` (_probe: the request of `health`, which must be cheap)
#   _top_screen  what `top` shows
#   _record      `record`, `show` (_recorder: frames from the endpoint into a file, for `monitor --pcapng` too)
#   _play        `play` (_player: at the right time)
#   _status      a relay's status, and what changed since the last one (_status_view: as text for a terminal)
#   _admin_client  asking a relay's admin endpoint

from ._entry import main as main
