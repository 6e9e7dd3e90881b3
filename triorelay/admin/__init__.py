# The admin endpoint: an HTTP service beside the relay that shows its state. Read in this order:
#   _config    its address, and what a request needs
#   _service   listening, sessions, and how many there may be
#   _http      one connection: requests in, replies out, all bounded
#   _messages  requests and replies
#   _guard     what a request must prove
#   _routes    from a path to a reply
#   _feed      `/events`: a status a second, joins and leaves, encoded once for all viewers
#   _monitor   `/monitor`, `/record`, `/flight`: the frames themselves
#   _metrics   `/metrics`
#   _page      `/`: the dashboard, made of the files in `dashboard/`
#   _pace      turns, so that none of this slows the relay

from ._config import AdminConfig as AdminConfig
from ._service import Admin as Admin
