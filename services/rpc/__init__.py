"""gRPC as an adapter: any object of a contract's shape becomes a server, and a remote one becomes such an object.

The only package that imports grpc. It works from the service descriptors, so a new service or method needs
nothing here.
"""

import os

# gRPC reads them when it is first imported. Our children exec at once, so its fork handlers only cost time and
# print warnings into the user's terminal; so would its own log, which tells of every connection that ends.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
# gRPC's own threads would take every message before ours does; without them a message costs half the task switches.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
