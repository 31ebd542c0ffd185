"""Brings what a client's URLs stand for, without letting a client reach what only the platform may reach.

`Downloader.fetch` asks a server on the internet, `decode_data_url` reads a `data:` URL. `addresses` says which hosts
are on the internet, `locations` which URLs may be asked for, `connections` connects to nothing but a checked address.
"""

from services.gateway.downloads.content import Fetched
from services.gateway.downloads.data_urls import decode_data_url
from services.gateway.downloads.downloader import Downloader
from services.gateway.downloads.settings import DownloadSettings

__all__ = ["DownloadSettings", "Downloader", "Fetched", "decode_data_url"]
