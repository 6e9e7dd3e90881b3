"""What is only for long runs is no test of a short one."""

import os

collect_ignore = [] if os.environ.get("SEEDS") else ["test_realm.py"]
