# The admin endpoint: a service beside the relay that shows what it does, over HTTP. Read in this order:
#   _config    where it listens and what a request needs
#   _service   listening, sessions, and how many there may be
#   _http      one connection: requests in, replies out, all of it bounded
#   _messages  requests and replies as the others see them
#   _guard     what a request must prove
#   _routes    from a path to a reply
#   _feed      `/events`: a status a second, joins and leaves, encoded once for all viewers
#   _monitor   `/monitor`, `/record`, `/flight`: the frames themselves
#   _metrics   `/metrics`
#   _page      `/`: the dashboard, out of the files in `dashboard/`
#   _pace      why none of this can slow the relay

from ._config import AdminConfig as AdminConfig
from ._service import Admin as Admin
