"""The way to servers that strangers name, without letting them reach what only the platform may reach.

`addresses` says which hosts are on the internet, `locations` which URLs may be asked for, `connections` connects to
nothing but a checked address. Downloads of clients' URLs and webhooks go this way.
"""
