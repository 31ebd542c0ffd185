"""gRPC as an adapter: any object of a contract's shape becomes a server, and a remote one becomes such an object.

The only package that imports grpc. It works from the service descriptors, so a new service or method needs
nothing here.
"""
